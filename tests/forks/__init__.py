"""Commands that start at once, not after seconds of imports: `python -m stages.<name>` in a fork of a server.

    environment["PATH"] = forks.path()

The server has imported torch, open_clip and other packages, and has done nothing else. A fork of it takes the folder,
the environment variables, the streams and the limit of file sizes from the caller. Variables that Python or a library
reads at its start, such as PYTHONPATH and OMP_NUM_THREADS, come too late for the fork: it has what the server started
with. The command `python` that stands first on this PATH asks the server to fork if a module of `stages` or `tests`
is to be run. Otherwise it becomes the Python of the tests.

If this command ends, its fork is killed. No other signal reaches the fork: tests of SIGTERM start real processes.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
TESTED_PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


@cache
def path() -> str:
    """Start a server, which ends with this process. Return a PATH whose `python` runs stages in forks of it."""
    server, folder = start()
    atexit.register(server.communicate)  # ends its input, and waits for its end
    return f"{folder}:{TESTED_PATH}"


def start() -> tuple[subprocess.Popen[bytes], Path]:
    """Start a server. At the end of its input, it removes its folder and ends.

    Returns its process, and its folder, in which the command `python` lies.
    """
    folder = Path(tempfile.mkdtemp(prefix="forks"))
    address = folder / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(address))
        listening.listen()
        server = subprocess.Popen(
            [sys.executable, HERE / "server.py", str(listening.fileno()), folder],
            pass_fds=[listening.fileno()],
            stdin=subprocess.PIPE,  # the server ends when this pipe is closed
        )
    command = folder / "python"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{HERE / "client.py"}" "{address}" "$@"\n')
    command.chmod(0o755)
    return server, folder

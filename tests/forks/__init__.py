"""Commands that start at once, not after seconds of imports: `python -m stages.<name>` in a fork of a server.

    environment["PATH"] = forks.path()

The server is a process that has imported torch, open_clip and other packages, and has done nothing else. A fork of it
is as good as a new process: it has the folder, the variables, the streams and the limit of file sizes of whoever
called. The command `python` that stands first on this PATH asks the server to fork if a module of `stages` or `tests`
is to be run. Otherwise it becomes the Python of the tests.

If this command ends, its fork is killed. No other signal reaches the fork: tests of SIGTERM start real processes.
"""

from __future__ import annotations

import atexit
import os
import shutil
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
    """Start the server, which ends with this process. Return a PATH whose `python` runs stages in forks of it."""
    folder = Path(tempfile.mkdtemp(prefix="forks"))
    address = folder / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(address))
        listening.listen()
        server = subprocess.Popen(
            [sys.executable, HERE / "server.py", str(listening.fileno())],
            pass_fds=[listening.fileno()],
            stdin=subprocess.PIPE,  # at its end the server ends
        )
    command = folder / "python"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{HERE / "client.py"}" "{address}" "$@"\n')
    command.chmod(0o755)
    atexit.register(_end, server, folder)
    return f"{folder}:{TESTED_PATH}"


def _end(server: subprocess.Popen[bytes], folder: Path) -> None:
    server.communicate()
    shutil.rmtree(folder)

"""Forks of this process run stages: server.py <number of a listening socket> <the folder of the socket>.

A fork runs a module as `python -m` does. An attendant (another fork) starts it, waits for it and sends its exit status
to the client. If the client has ended, the attendant kills it. At the end of its input, the server removes the folder
and ends.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import resource
import runpy
import select
import shutil
import signal
import socket
import sys
import traceback

import sitecustomize

PACKAGES = (
    "open_clip",
    "matplotlib.pyplot",
    "pandas",
    "scipy.stats",
    "sklearn.cluster",
    "torchvision",
    "zarr",
    "pydantic",
    "pyarrow",
)
MOST_BYTES = 1 << 20  # of a message


def next_command(listening: socket.socket, folder: str) -> list[str]:
    """Wait for commands. This function returns in forks alone, each time one command: a module and its options.

    listening: the socket that clients connect to. folder: what to remove at the end of the input.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the attendants
    while listening in select.select([listening, sys.stdin], [], [])[0]:
        line, _ = listening.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listening.close()
            return attended(line)
        line.close()
    shutil.rmtree(folder)
    os._exit(0)


def attended(line: socket.socket) -> list[str]:
    """Fork what was asked for over a line, and report its exit status. This function returns in that fork alone."""
    message, streams, _, _ = socket.recv_fds(line, MOST_BYTES, 3)
    asked = json.loads(message)
    command = os.fork()
    if command:
        wait_for(command, line)
    line.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["variables"])
    resource.setrlimit(resource.RLIMIT_FSIZE, asked["file_size"])
    sys.path[0] = asked["folder"]
    return asked["command"]


def wait_for(command: int, line: socket.socket) -> None:
    """End this process when a command has ended, whose exit status goes over a line."""
    ended = os.pidfd_open(command)
    if ended not in select.select([ended, line], [], [])[0]:
        os.kill(command, signal.SIGKILL)
        os.waitpid(command, 0)
        os._exit(0)
    _, status = os.waitpid(command, 0)
    line.sendall(str(os.waitstatus_to_exitcode(status) % 256).encode())
    os._exit(0)


def run(command: list[str]) -> int:
    """Run a module with its options; return the exit status."""
    sys.argv = command
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, int | None):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.modules.update(dict.fromkeys(sitecustomize.OF_THE_TESTS))
    for package in PACKAGES:
        importlib.import_module(package)
    gc.freeze()  # a fork that collected these objects, or took them apart at its end, would copy their memory: 3 s
    status = run(next_command(socket.socket(fileno=int(sys.argv[1])), sys.argv[2]))
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

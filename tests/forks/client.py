"""`python`, for which a server forks if it is to run a module of the project: client.py <socket> <its options>."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys


def main() -> None:
    address, *options = sys.argv[1:]
    if options[:1] != ["-m"] or not options[1].startswith(("stages.", "tests.")):
        os.execv(sys.executable, [sys.executable, *options])
    asked = {
        "command": options[1:],
        "folder": os.getcwd(),
        "variables": dict(os.environ),
        "file_size": resource.getrlimit(resource.RLIMIT_FSIZE),
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.connect(address)
        socket.send_fds(line, [json.dumps(asked).encode()], [0, 1, 2])
        sys.exit(int(line.recv(16)))


main()

"""No address but this machine's is looked up or connected to, and stages do without packages of the tests alone.

Where this folder is on PYTHONPATH, Python imports this module by itself before anything else.
"""

from __future__ import annotations

import platform
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
LOOKUPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
SENDINGS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
OF_THE_TESTS = ("transformers", "wandb")  # requirements.lock lacks them; open_clip would import them, for 4 s a process


def host_asked_for(event: str, args: tuple[Any, ...]) -> Any:
    """The host that an audit event is about, None for events of other kinds and for Unix sockets."""
    if event in LOOKUPS:
        return args[0]
    if event in SENDINGS and isinstance(args[1], tuple):
        return args[1][0]
    return None


def is_this_machine(host: Any) -> bool:
    name = host.decode() if isinstance(host, bytes) else str(host)
    if name in ("", "localhost", platform.node()):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def refuse_others(event: str, args: tuple[Any, ...]) -> None:
    """Raise ConnectionRefusedError before another machine is asked for anything."""
    host = host_asked_for(event, args)
    if host is not None and not is_this_machine(host):
        raise ConnectionRefusedError(f"the tests run without a network, and {host} is not this machine")


def is_a_stage(command: list[str]) -> bool:
    """Whether a command line, as `sys.orig_argv` has it, runs a module of `stages`."""
    return any(word.startswith("stages.") for word in command)


def run_the_next() -> None:
    """The sitecustomize that stands behind this one on the path, if there is one."""
    spec = PathFinder.find_spec("sitecustomize", [path for path in sys.path if Path(path).resolve() != FOLDER])
    if spec and spec.loader:
        spec.loader.exec_module(module_from_spec(spec))


sys.addaudithook(refuse_others)
if __name__ == "sitecustomize":
    if is_a_stage(sys.orig_argv):
        sys.modules.update(dict.fromkeys(OF_THE_TESTS))  # None: to import it raises ModuleNotFoundError
    run_the_next()

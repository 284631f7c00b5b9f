"""Sentences for what a machine refuses: files, rights, space, memory, processes, and text in another encoding."""

from __future__ import annotations

import errno
import os
import re
import sys
from types import TracebackType

MEMORY = re.compile(
    "out of memory|not enough memory|can't allocate memory|cannot allocate memory|unable to allocate|bad_alloc"
    "|alloc_failed|failed to allocate|failed to map segment",
    re.IGNORECASE,
)  # as torch, CUDA, cuBLAS, oneDNN, the system and its loader of libraries say it
THREADS = "can't start new thread"
PEER = re.compile("gloo|nccl|connection (closed|reset) by peer", re.IGNORECASE)  # as torch.distributed says it

RIGHTS = "this user may not use it so; change its rights or its owner"
REMEDIES = {
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.EROFS: "mount its file system for writing, or work in another folder",
    errno.ENOSPC: "make space there",
    errno.EDQUOT: "make space there: the quota of this user is used up",
    errno.EMFILE: "let a process open more files (`ulimit -n`)",
    errno.ENFILE: "close other programs: the machine has too many files open",
    errno.EAGAIN: "let this user start more processes (`ulimit -u`), or close some",
    errno.EBUSY: "close or unmount what holds it",
    errno.EIO: "check the disk, which reports a fault",
    errno.EPIPE: "keep the program open that reads what is printed",
}
"""What a user can do, by number of the system's error. Only these are faults of the machine and no damage to a file."""
MISSING = "check that path; `dvc repro` makes what a stage writes"


def of_machine(error: BaseException) -> bool:
    """Tell whether an error comes from the machine, such as missing rights or used-up memory.

    A file that is missing or damaged is another matter: the stage that wrote the file can write it again.
    """
    return out_of_memory(error) or (isinstance(error, OSError) and error.errno in REMEDIES)


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory is used up: of this machine, of a GPU, or what this process may use."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | ImportError) and MEMORY.search(str(error)) is not None


def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show an error that ends a command: a sentence if the machine is at fault, else the traceback.

    The function takes the place of `sys.excepthook`, for errors of the imports, before `run_command` is reached.
    """
    says = None if sys.flags.dev_mode else in_words(error)
    if says is None:
        sys.__excepthook__(kind, error, trace)
    elif sys.stderr is not None:
        print(says, file=sys.stderr)


def in_words(error: BaseException) -> str | None:
    """Say in a sentence what the machine refused, and what the user can do.

    Returns None for an error that is a fault of the program.
    """
    if out_of_memory(error):
        return (
            f"Out of memory ({_first_line(error)}). Lower what is held at once: the batch_size of the stage, "
            "train_sae.memory_gib, inference.n_bootstrap, extract.shard_images or ingest.max_megapixels. Or let the "
            "process use more (`ulimit -v`)"
        )
    if isinstance(error, RuntimeError) and THREADS in str(error):
        return f"No thread can be started: {REMEDIES[errno.EAGAIN]}"
    if isinstance(error, RuntimeError) and PEER.search(str(error)):
        return f"Another process of this stage has ended ({_first_line(error)}); see what it said, and run again"
    if isinstance(error, UnicodeError):
        return _of_text(error)
    if isinstance(error, OSError):
        return _of_file(error)
    if isinstance(error, ImportError) and os.strerror(errno.EMFILE) in str(error):
        return f"{_first_line(error)}; {REMEDIES[errno.EMFILE]}"
    return None


def _of_file(error: OSError) -> str:
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    refused = error.strerror or _first_line(error)
    return ": ".join([*names, f"{refused}; {REMEDIES.get(error.errno or 0, MISSING)}"])


def _of_text(error: UnicodeError) -> str:
    if not isinstance(error, UnicodeEncodeError | UnicodeDecodeError):
        return f"Text cannot be read or written: {_first_line(error)}; use UTF-8"
    return (
        f"Text cannot be read or written as {error.encoding}: {ascii(error.object)[:200]}, {error.reason}; rename or "
        "rewrite it in UTF-8, and use a locale with UTF-8, such as LC_ALL=C.UTF-8"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

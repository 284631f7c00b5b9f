"""Outputs are whole or not there: each is written beside its place, and renamed into it.

A stage that is killed leaves nothing that another could take for whole; one that finds the disk full leaves what was
there before it. What a killed stage began is removed by its next run. Of two processes that write the same output the
second waits for the first: a killed DVC leaves its stage running.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

LOCKS_DPATH = Path(".ckpt/outs")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFull(SystemExit):
    """An output that does not fit. Exits with its path and the space that is left."""


def part(path: Path) -> Path:
    """Where an output is while it is being written."""
    return path.with_name(f".part.{path.name}")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file or a folder that takes the place of `path` when the context ends without an error.

    Raises DiskFull where there is no space left.
    """
    unfinished = part(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path):
        remove(unfinished)
        try:
            yield unfinished
            if unfinished.is_file():
                _to_disk(unfinished)
            if unfinished.is_dir() or path.is_dir():
                remove(path)  # only a file can be renamed onto what is there, and only onto a file
            unfinished.replace(path)
        except BaseException as error:
            remove(unfinished)
            if out_of_space(error):
                raise DiskFull(_says(path)) from None
            raise


def out_of_space(error: BaseException) -> bool:
    """Whether an error says that the disk, or a quota on it, is full. Libraries wrap it in errors of their own."""
    return getattr(error, "errno", None) in NO_SPACE or any(os.strerror(code) in str(error) for code in NO_SPACE)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _lock(path: Path) -> FileLock:
    """One for each output, outside of what DVC keeps."""
    LOCKS_DPATH.mkdir(parents=True, exist_ok=True)
    return FileLock(LOCKS_DPATH / hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32])


def _to_disk(fpath: Path) -> None:
    with fpath.open("rb") as file:
        os.fsync(file.fileno())


def _says(path: Path) -> str:
    free = shutil.disk_usage(path.parent).free
    return (
        f"{path} does not fit: {free / 2**20:,.1f} MiB are free there (or a quota is used up). Make space and run the "
        "stage again; what was there before is kept"
    )

"""Outputs are whole or not there: each is written beside its place, and renamed into it.

A stage that is killed leaves nothing that another could take for whole; one that finds the disk full leaves what was
there before it. What a killed stage began is removed by its next run. Of two processes that write the same output the
second waits for the first: a killed DVC leaves its stage running.

What a stage leaves for people and for `dvc metrics`, `dvc plots`: nested numbers (`write_metrics`) and tables.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

LOCKS_DPATH = Path(".ckpt/outs")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFull(SystemExit):
    """An output that does not fit. Exits with its path and the space that is left."""


class UnreadableError(SystemExit):
    """A file of an earlier stage that cannot be read. Exits with its path and the remedy."""


def part(path: Path) -> Path:
    """Where an output is while it is being written."""
    return path.with_name(f".part.{path.name}")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file or a folder that takes the place of `path` when the context ends without an error.

    Raises DiskFull where there is no space left.
    """
    unfinished, former = part(path), path.with_name(f".part.former.{path.name}")
    with fitting(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            if former.exists() and not path.exists():
                former.rename(path)  # a kill came between the two renames
            for left in (unfinished, former):
                remove(left)
            try:
                yield unfinished
                if unfinished.is_file():
                    _to_disk(unfinished)
            except BaseException:
                remove(unfinished)
                raise
            _put(unfinished, path, former)


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """While open, an error that says that there is no space left becomes DiskFull, naming `path`."""
    try:
        yield
    except Exception as error:
        if out_of_space(error):
            raise DiskFull(_says(path)) from None
        raise


def write_metrics(fpath: Path, metrics: dict[str, Any]) -> None:
    """Write nested numbers as JSON.

    Raises ValueError for anything DVC would drop without a word (lists, nulls, text) or that JSON does not know (NaN).
    """
    _check_numbers(metrics, fpath.stem)
    with whole(fpath) as unfinished:
        unfinished.write_text(json.dumps(metrics, indent=2) + "\n")


def read_json(fpath: Path, stage: str) -> dict[str, Any]:
    """Read a JSON object that `stage` wrote. Raises UnreadableError."""
    with _reading(fpath, stage):
        found = json.loads(fpath.read_text())
        if not isinstance(found, dict):
            raise ValueError(f"expected keys and values, found {type(found).__name__}")
        return found


def read_metrics(fpath: Path, stage: str) -> dict[str, Any]:
    """Read what `write_metrics` wrote in `stage`. Raises UnreadableError."""
    with _reading(fpath, stage):
        found = read_json(fpath, stage)
        _check_numbers(found, fpath.stem)
        return found


def read_table(fpath: Path, stage: str) -> pd.DataFrame:
    """Read a CSV that `stage` wrote. Raises UnreadableError."""
    with _reading(fpath, stage):
        return pd.read_csv(fpath)


@contextmanager
def _reading(fpath: Path, stage: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableError(f"{fpath} is missing or damaged ({error}); rerun `dvc repro --force {stage}`") from None


def write_table(fpath: Path, table: pd.DataFrame) -> None:
    """Write a tidy CSV without an index."""
    with whole(fpath) as unfinished:
        table.to_csv(unfinished, index=False)


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


def _put(unfinished: Path, path: Path, former: Path) -> None:
    """Rename what is whole into its place. Only a file can be renamed onto what is there, and only onto a file: else
    what is there is renamed away and removed last, so that at any moment one of the two is whole."""
    if unfinished.is_file() and not path.is_dir():
        unfinished.replace(path)
        return
    unfinished.stat()  # it is there, or nothing is touched
    if path.exists():
        path.rename(former)
    unfinished.rename(path)
    remove(former)


def _to_disk(fpath: Path) -> None:
    with fpath.open("rb") as file:
        os.fsync(file.fileno())


def _says(path: Path) -> str:
    free = shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.is_dir())).free
    return (
        f"{path} does not fit: {free / 2**20:,.1f} MiB are free there (or a quota is used up). Make space and run the "
        "stage again; what was there before is kept"
    )


def _check_numbers(value: Any, key: str) -> None:
    if isinstance(value, dict):
        for name, part in value.items():
            _check_numbers(part, f"{key}.{name}")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"metric {key} is {type(value).__name__}, not a number")
    elif not math.isfinite(value):
        raise ValueError(f"metric {key} is {value}")

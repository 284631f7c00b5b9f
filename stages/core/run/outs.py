"""Atomic outputs: each is written beside its place and renamed into it, so it is whole or not there.

A killed stage leaves no output that another stage could take for whole. Its next run removes what it began. A stage
that finds the disk full keeps the former output. So does a stage whose inputs have changed since it read them, such as
a stage that outlived its DVC while the study was run again.

A lock keeps two processes from writing one output at the same moment. It is held while an output is written, and not
while a stage computes. If the inputs are the same, the later process replaces the output by an equal one.

Metrics are nested numbers (`write_metrics`), tables are tidy CSV files (`write_table`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from pandas.api.types import is_numeric_dtype

from stages.core.run import faults, inputs
from stages.core.run.errors import StudyError

LOCKS_DPATH = Path(".ckpt/outs")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ATTEMPTS = 20  # to remove a folder into which chunks are still written
SECONDS_FOR_CHUNKS = 0.1  # that chunks under way have to reach the disk
SECONDS_BEFORE_WORD = 2.0  # that a process waits for a lock before it says so
ARRAY_FNAME = "zarr.json"  # in the folder of every Zarr array or group


class DiskFull(StudyError):
    """An output does not fit on the disk. The message names its path and the limit that is reached."""


class OutputError(StudyError):
    """An output cannot be put into its place. The message names its path, the reason and the remedy."""


class UnreadableError(StudyError):
    """A file of an earlier stage cannot be read. The message names its path and the remedy."""


class Record(dict[str, Any]):
    """The content of a JSON file of an earlier stage. A look at a key that is missing raises UnreadableError.

    values: the content. fpath: the file. stage: name of the stage that wrote it.
    path: keys that lead to `values` in the file, each with a point behind it.
    """

    def __init__(self, values: dict[str, Any], fpath: Path, stage: str, path: str = ""):
        self.fpath, self.stage, self.path = fpath, stage, path
        super().__init__(
            {
                key: Record(value, fpath, stage, f"{path}{key}.") if isinstance(value, dict) else value
                for key, value in values.items()
            }
        )

    def __missing__(self, key: str) -> Any:
        raise UnreadableError(f"{self.fpath} lacks {self.path}{key}; {_rerun(self.stage)}")


def unfinished_path(path: Path) -> Path:
    """Return the path where an output is written before it is renamed to `path`: `.part.<name>` beside it."""
    return path.with_name(f".part.{path.name}")


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Write an output as a whole or not at all. The context gives a temporary path, to write the output to.

    The new output replaces `path` when the context ends without an error. After an error, `path` is as before.
    A second process that opens a context for the same output waits until the first has ended its own.
    path: the output, a file or a folder. Missing parent folders are created.
    Raises DiskFull if the disk has no space left. Raises FileNotFoundError if nothing was written. Raises OutputError
    if an input has changed since the command read it, or if a file would replace a folder that has content and is no
    array.
    """
    unfinished, former = unfinished_path(path), path.with_name(f".part.former.{path.name}")
    with naming_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with acquire(_lock(path), path):
            if former.exists() and not path.exists():
                former.rename(path)  # a kill came between the two renames
            for left in (unfinished, former):
                remove(left)
            try:
                yield unfinished
                if unfinished.is_file():
                    _to_disk(unfinished)
                _check_place(unfinished, path)
            except BaseException:
                _discard(unfinished)
                raise
            _put(unfinished, path, former)


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Inside the context, turn any error that means a full disk into DiskFull. Other errors pass unchanged.

    path: the output that is being written. The message of DiskFull names this path.
    """
    try:
        yield
    except Exception as error:
        if out_of_space(error):
            raise DiskFull(f"{path} does not fit: {_limit(path, error)}; what was there before is kept") from None
        raise


def acquire(lock: FileLock, path: Path) -> Any:
    """Acquire a lock. If another process holds it for long, say so and wait.

    path: what the lock protects, for the message.
    Returns a context manager that releases the lock.
    """
    try:
        return lock.acquire(timeout=SECONDS_BEFORE_WORD)
    except Timeout:
        print(f"{path}: waiting for another process that uses it (lock {lock.lock_file})", file=sys.stderr, flush=True)
        return lock.acquire()


def write_metrics(fpath: Path, metrics: dict[str, Any]) -> None:
    """Write metrics as JSON to `fpath`.

    metrics: numbers by name. A value may also be a dictionary of numbers by name, to any depth.
    Raises ValueError for a number that is not finite, and for any other kind of value (list, null, text, boolean).
    Raises DiskFull if the disk has no space left.
    """
    _check_numbers(metrics, fpath.stem)
    with atomic_output(fpath) as unfinished:
        unfinished.write_text(json.dumps(metrics, indent=2) + "\n")


def read_json(fpath: Path, stage: str) -> Record:
    """Read a JSON object from a file of an earlier stage.

    stage: name of the stage that wrote the file. The message of an error asks the user to rerun this stage.
    Returns the keys and values. Whoever looks up a key that is missing gets an UnreadableError.
    Raises UnreadableError if the file is missing, damaged, or holds no JSON object.
    """
    with reading(fpath, stage):
        found = json.loads(fpath.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"expected keys and values, found {type(found).__name__}")
        return Record(found, fpath, stage)


def read_metrics(fpath: Path, stage: str) -> Record:
    """Read the metrics of an earlier stage: numbers by name. A value may also be a dictionary of numbers, to any depth.

    stage: name of the stage that wrote the file. The message of an error asks the user to rerun this stage.
    Returns the metrics. Whoever looks up a metric that is missing gets an UnreadableError.
    Raises UnreadableError if the file is missing or damaged, or if a value is not a finite number.
    """
    with reading(fpath, stage):
        found = read_json(fpath, stage)
        _check_numbers(found, fpath.stem)
        return found


def read_table(
    fpath: Path,
    stage: str,
    numbers: Collection[str],
    *,
    with_gaps: Collection[str] = (),
    text: Collection[str] = (),
    least_rows: int = 1,
) -> pd.DataFrame:
    """Read a CSV table of an earlier stage.

    stage: name of the stage that wrote the file. The message of an error asks the user to rerun this stage.
    numbers: columns that must hold finite numbers. with_gaps: columns of numbers where a cell may be empty.
    text: columns that must be present, with any content.
    least_rows: smallest number of rows.
    Returns the whole table, with the column types that pandas infers.
    Raises UnreadableError if the file is missing or damaged, or if the table does not have these columns and rows.
    """
    with reading(fpath, stage):
        table = pd.read_csv(fpath)
        if not isinstance(table.index, pd.RangeIndex):  # pandas took the first fields as names of the rows
            raise ValueError("rows have more fields than the header")
        for name in (*numbers, *with_gaps, *text):
            if name not in table:
                raise ValueError(f"no column {name}")
            if name not in text and len(table) and not is_numeric_dtype(table[name]):
                raise ValueError(f"column {name} holds text")
            if name in numbers and len(table) and not np.isfinite(table[name]).all():
                raise ValueError(f"column {name} holds a value that is no finite number")
        if len(table) < least_rows:
            raise ValueError(f"{len(table)} rows")
        return table


@contextmanager
def reading(fpath: Path, stage: str) -> Iterator[None]:
    """Inside the context, turn an error of a file that is missing or damaged into UnreadableError.

    fpath: the file of an earlier stage that is read. stage: name of that stage, for the remedy in the message.
    Errors of the machine, such as missing rights, pass unchanged.
    """
    inputs.remember_file(fpath)
    try:
        if not fpath.is_file():  # a pipe would be read without end
            raise FileNotFoundError("no such file")
        yield
    except (OSError, ValueError, SyntaxError, RecursionError) as error:  # Pillow has SyntaxError for a broken PNG
        if faults.of_machine(error):
            raise
        raise UnreadableError(f"{fpath} is missing or damaged ({error}); {_rerun(stage)}") from None


def _rerun(stage: str) -> str:
    return f"rerun `dvc repro --force {stage}`"


def write_table(fpath: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV to `fpath`, without its index. Raises DiskFull if the disk has no space left."""
    with atomic_output(fpath) as unfinished:
        table.to_csv(unfinished, index=False)


def out_of_space(error: BaseException) -> bool:
    """Tell whether an error means that the disk is full, that a quota is used up, or that a file is too large.

    error: an error of the operating system, or an error of a library whose message contains the system's message.
    """
    return any(_is(code, error) for code in NO_SPACE)


def _is(code: int, error: BaseException) -> bool:
    return getattr(error, "errno", None) == code or os.strerror(code) in str(error)


def remove(path: Path) -> None:
    """Remove a file, a folder with its content, or a symbolic link. The target of a link is kept.

    Does nothing if nothing is at `path`.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _discard(unfinished: Path) -> None:
    """Remove an output that failed.

    Zarr writes the chunks of an array in several threads. After a fault in one chunk, the others may still be under
    way, and put files back into a folder that was removed.
    """
    if not unfinished.is_dir():
        return remove(unfinished)
    for _ in range(ATTEMPTS):
        with suppress(OSError):  # a file may come into the folder while it is emptied
            remove(unfinished)
        time.sleep(SECONDS_FOR_CHUNKS)
        if not unfinished.exists():
            return None
    return remove(unfinished)


def _lock(path: Path) -> FileLock:
    """The lock of one output. It lies outside the folders that DVC keeps."""
    LOCKS_DPATH.mkdir(parents=True, exist_ok=True)
    return FileLock(LOCKS_DPATH / hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32])


def _check_place(unfinished: Path, path: Path) -> None:
    """Raise OutputError if the new output must not replace what is at `path`.

    A Zarr array may give way to a file: the activation store of one run can be a file that points to another place.
    """
    folder = path.is_dir() and not path.is_symlink()
    if unfinished.is_file() and folder and any(path.iterdir()) and not (path / ARRAY_FNAME).is_file():
        raise OutputError(f"{path} is a folder with content, and a file belongs there; move it away, and run again")
    if changed := inputs.changed():
        raise OutputError(f"{path} is not written: {changed[0]} has changed since this command read it; run it again")


def _put(unfinished: Path, path: Path, former: Path) -> None:
    """Rename the new output into its place.

    The system renames a file onto a file in one step. In every other case the former output is renamed away first and
    removed last, so that one of the two is whole at any moment.
    """
    if unfinished.is_file() and not path.is_dir():
        unfinished.replace(path)
        return
    unfinished.stat()  # raises before anything is touched if the new output is missing
    if path.exists():
        path.rename(former)
    unfinished.rename(path)
    remove(former)


def _to_disk(fpath: Path) -> None:
    with fpath.open("rb") as file:
        os.fsync(file.fileno())


def _limit(path: Path, error: Exception) -> str:
    """Say which limit an output has reached, from an error that `out_of_space` recognised."""
    found = os.statvfs(next(folder for folder in path.absolute().parents if folder.is_dir()))
    free = f"{found.f_bavail * found.f_frsize / 2**20:,.1f} MiB are free there"
    if _is(errno.EFBIG, error):
        import resource  # which only systems like Unix have

        most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        allowed = (
            "its file system limits" if most == resource.RLIM_INFINITY else f"`ulimit -f` limits to {most:,} bytes"
        )
        return f"{allowed} how large a file may be ({free}). Raise the limit, and run again"
    if _is(errno.EDQUOT, error):
        return f"the quota of this user is used up ({free}). Make space, and run again"
    if found.f_files and not found.f_favail:
        return f"no more files can be made there ({free}). Remove some, and run again"
    return f"{free}. Make space, and run again"


def _check_numbers(value: Any, key: str) -> None:
    if isinstance(value, dict):
        for name, part in value.items():
            _check_numbers(part, f"{key}.{name}")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"metric {key} is {type(value).__name__}, not a number")
    elif not math.isfinite(value):
        raise ValueError(f"metric {key} is {value}")

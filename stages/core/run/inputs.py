"""What a command has read, so that it can tell before it writes whether the same is still there.

A stage can outlive the `dvc repro` that started it. DVC is killed, the stage is suspended or runs on, and the study is
run again with other parameters. The old stage must then not replace the new results. Parameters that are edited while
a stage runs are the same case: DVC reads them once more when the stage ends, and would record them with results that
they did not give.

Whoever reads an input says so here. `outs.atomic_output` asks, before it puts an output into its place, what has
changed. Only `run_command` switches this on, so code that uses the library from elsewhere notices nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

Look = Callable[[], Any]
"""A function that looks at an input and returns a value that differs if the input has changed."""

_seen: dict[str, tuple[Look, Any]] | None = None  # None outside `watched`


@contextmanager
def watched() -> Iterator[None]:
    """Remember the inputs that are read while this context is open."""
    global _seen
    before, _seen = _seen, {}
    try:
        yield
    finally:
        _seen = before


def remember(name: str, look: Look, seen: Any) -> None:
    """Remember an input. If an input of this name was remembered before, the first look counts.

    name: what a message calls the input.
    look: called before each output is put into its place.
    seen: what `look` must return then.
    """
    if _seen is not None:
        _seen.setdefault(name, (look, seen))


def remember_file(path: Path) -> None:
    """Remember a file or folder that is about to be read. Call this before the file is opened."""
    look = partial(_identity, path.absolute())
    remember(str(path), look, look())


def changed() -> list[str]:
    """Return the names of all remembered inputs that are no longer what they were."""
    return [name for name, (look, seen) in (_seen or {}).items() if look() != seen]


def _identity(path: Path) -> tuple[int, int] | None:
    """Time of the last change and size; None if nothing can be found at `path`.

    The number of the inode is left out: some network file systems make it up anew.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size

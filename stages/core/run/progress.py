"""A progress bar for work that takes longer than ten seconds: what is done, how much of it, and when it ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

SILENT = 10  # seconds of work that need no bar
BETWEEN = 5  # seconds between two updates, so that a log stays short

Item = TypeVar("Item")


def progress(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Yield each item, and show a progress bar once the work has taken longer than ten seconds.

    items: what is worked on, one by one. what: a word or two that name the work.
    total: number of items, if `items` has no length.
    """
    yield from bar(what, total, items)


def bar(what: str, total: int | None = None, items: Iterable[Any] | None = None, *, shown: bool = True) -> Any:
    """Return a progress bar (tqdm) that appears once the work has taken longer than ten seconds.

    what: a word or two that name the work. total: number of units of work. items: what is worked on, if the bar is to
    be iterated. shown: False gives a bar that never appears, for all processes but the first.
    """
    return tqdm(items, desc=what, total=total, delay=SILENT, mininterval=BETWEEN, disable=not shown)

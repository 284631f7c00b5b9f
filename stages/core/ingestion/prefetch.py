"""A thread map with prefetching, to read and decode images on all cores. Results keep their order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def ordered_map(work: Callable[[Given], Made], items: Iterable[Given]) -> Iterator[Made]:
    """Apply `work` to every item in several threads, and yield the results in the order of the items.

    About one result per core is computed in advance. Threads suit work that releases Python's global interpreter lock,
    such as decoding and resizing images. If `work` fails for an item, its error is raised in place of the item's
    result, after the results of all earlier items.
    """
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    coming: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(n) as pool:
        for item in items:
            coming.append(pool.submit(work, item))
            if len(coming) > n:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()

"""Work on things that come one after another, some of them at once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def ahead(work: Callable[[Given], Made], items: Iterable[Given]) -> Iterator[Made]:
    """`work` of every item, in order: a thread for each core is ahead of who asks, and no more results are waiting.

    For work that leaves Python's lock alone, as decoding and resizing images does.
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

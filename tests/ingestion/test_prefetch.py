"""Work ahead of who asks."""

from __future__ import annotations

import threading
import time

import pytest

from stages.core.ingestion.prefetch import ordered_map


def test_results_come_in_order():
    def work(n: int) -> int:
        time.sleep(0.01 * (n % 3))
        return n * n

    assert list(ordered_map(work, range(20))) == [n * n for n in range(20)]


def test_some_are_worked_on_at_once_and_never_all():
    begun: list[int] = []
    results = ordered_map(begun.append, range(1000))
    for asked in range(1, 6):
        next(results)
        time.sleep(0.05)
        assert asked < len(begun) <= asked + threading.active_count()
    results.close()


def test_an_error_comes_in_its_turn():
    results = ordered_map(lambda n: 1 // n, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)

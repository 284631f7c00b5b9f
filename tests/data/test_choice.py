"""Some of many things, by hand."""

from __future__ import annotations

import pytest

from stages.core.data.choice import evenly


@pytest.mark.parametrize(
    ("n", "n_wanted", "chosen"),
    [(9, 3, [0, 4, 8]), (9, 1, [0]), (5, 4, [0, 1, 3, 4]), (2, 5, [0, 1]), (0, 5, [])],
)
def test_what_is_chosen_is_evenly_spread_from_the_first_to_the_last(n, n_wanted, chosen):
    assert evenly(n, n_wanted).tolist() == chosen

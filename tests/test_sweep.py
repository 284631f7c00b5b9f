"""The recorded sweep over planted bias and seeds: its page tells what its runs say."""

from __future__ import annotations

import pandas as pd
import pytest

from stages.studies import sweep

RUNS = pd.read_csv(sweep.RUNS_FPATH)
PAGE = sweep.RUNS_FPATH.with_name("README.md").read_text()


def test_the_page_has_the_tables_of_the_recorded_runs():
    assert sweep.table(RUNS) in PAGE
    assert sweep.tracking_table(RUNS) in PAGE


def test_runs_add_to_those_recorded_and_replace_their_like():
    recorded = pd.DataFrame({"bias": [0.0, 0.9], "seed": [1, 1], "R_gap": [0.1, 0.2]})
    found = pd.DataFrame({"bias": [0.9, 0.3], "seed": [1, 2], "R_gap": [0.7, 0.8]})
    both = sweep.merged(recorded, found)
    assert both.to_numpy().tolist() == [[0.0, 1, 0.1], [0.3, 2, 0.8], [0.9, 1, 0.7]]


def test_shares_have_exact_intervals():
    rate, low, high = sweep.share(0, 5)
    assert (rate, low) == (0, 0)
    assert high == pytest.approx(1 - 0.025 ** (1 / 5))  # the rate at which five misses in a row have p = .025
    rate, low, high = sweep.share(3, 3)
    assert (rate, high) == (1, 1) and low == pytest.approx(0.025 ** (1 / 3))


def test_an_endpoint_that_follows_the_bias_is_told_from_one_that_does_not():
    runs = pd.DataFrame({"bias": [0, 0, 0.3, 0.3, 0.9, 0.9]})
    for name in sweep.ENDPOINTS:
        runs[name] = runs["bias"] if name == "R_gap" else [0.5, 0.1, 0.4, 0.2, 0.3, 0.3]
    found = sweep.tracking(runs).set_index("endpoint")
    assert found.loc[sweep.ENDPOINTS["R_gap"], ["rho", "low", "high"]].tolist() == pytest.approx([1, 1, 1])
    other = found.loc[sweep.ENDPOINTS["lift_gap_grad_eclip"]]
    assert other["low"] < 0 < other["high"]

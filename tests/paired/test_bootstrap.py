"""Bootstrap-t intervals over women: identities, limits that can be worked out by hand, and coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stages.core import paired
from stages.core.paired import bootstrap
from tests.bench import coverage

SETTINGS = {"n_bootstrap": 400, "confidence": 0.95, "seed": 0}


def test_t_of_a_resample_is_the_one_sample_t(rng):
    values = rng.normal(size=(9, 3))
    weights = bootstrap.resample_women(9, 20, seed=1)
    found = bootstrap.bootstrap_t(values, np.ones(9), weights)
    for t, drawn in zip(found, weights.astype(int), strict=True):
        resample = np.repeat(values, drawn, axis=0)
        assert t == pytest.approx(stats.ttest_1samp(resample, values.mean(0)).statistic)


def test_t_of_women_with_unequal_pairs_is_cluster_robust(rng):
    """Against a loop: mean over pairs; squared sums of each woman's deviations; W / (W - 1)."""
    women = np.repeat(np.arange(6), [1, 4, 2, 5, 3, 3])
    values = rng.normal(size=(18, 1))
    sums, counts = paired.by_cluster(values, women)
    weights = bootstrap.resample_women(6, 10, seed=1)
    found = bootstrap.bootstrap_t(sums, counts, weights)[:, 0]
    for t, drawn in zip(found, weights.astype(int), strict=True):
        own = [values[women == woman, 0] for woman in np.repeat(np.arange(6), drawn)]
        mean = np.concatenate(own).mean()
        squares = sum((pairs - mean).sum() ** 2 for pairs in own) * 6 / 5
        assert t == pytest.approx((mean - values.mean()) * len(np.concatenate(own)) / np.sqrt(squares))


def test_a_resample_of_equal_women_has_infinite_t():
    sums = np.array([[0.0, 0.3], [0.0, 0.3], [1.0, 0.3]])
    found = bootstrap.bootstrap_t(sums, np.ones(3), np.array([[3.0, 0, 0], [2, 1, 0], [0, 0, 3], [1, 1, 1]]))
    assert found[:, 0] == pytest.approx([-np.inf, -np.inf, np.inf, 0])
    assert (found[:, 1] == 0).all()


def test_the_interval_follows_shifts_and_scales(rng):
    values, women = rng.exponential(size=60), np.repeat(np.arange(15), 4)
    found = paired.interval(values, women, **SETTINGS)
    moved = paired.interval(3 - 2 * values, women, **SETTINGS)
    assert (moved.low, moved.high) == pytest.approx((3 - 2 * found.high, 3 - 2 * found.low))
    assert found.low < found.estimate < found.high
    assert found.high - found.estimate > 1.2 * (found.estimate - found.low)  # the tail is above


def test_one_woman_who_differs_bounds_the_interval_by_her_own_mean():
    """Ten women, one of them 1: mean .1, standard error .1. Many resamples lack her: t is cut at -10, .1 + 10 x .1."""
    values = np.array([1.0, *np.zeros(9)])
    found = paired.interval(values, np.arange(10), **SETTINGS)
    assert found.estimate == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1 + 10 * 0.1)
    assert np.isfinite(found.low)


def test_women_who_agree_and_one_woman_give_no_width():
    for values, women in ((np.full(6, 0.3), np.arange(6)), (np.array([1.0, 2.0]), np.zeros(2))):
        found = paired.interval(values, women, **SETTINGS)
        assert (found.low, found.high) == pytest.approx((values.mean(), values.mean()))


def test_levels_are_expanded_as_documented():
    found = [bootstrap.expanded_level(0.025, women) for women in (12, 20, 40, 10**6)]
    assert found == pytest.approx([0.011, 0.016, 0.020, 0.025], abs=5e-4)


def test_intervals_of_many_columns_are_those_of_each(rng, monkeypatch):
    values, women = rng.normal(size=(40, 7)), np.repeat(np.arange(10), 4)
    monkeypatch.setattr(bootstrap, "CHUNK_VALUES", 3 * 4 * SETTINGS["n_bootstrap"])  # three columns at once
    low, high = paired.bootstrap_interval(values, women, **SETTINGS)
    for j, column in enumerate(values.T):
        found = paired.interval(column, women, **SETTINGS)
        assert (low[j], high[j]) == pytest.approx((found.low, found.high))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["normal", "R: exponential and lognormal", "gain of R, 9 of 10 nearly 0"])
def test_coverage_without_bounds(case):
    """At least .93 in 1,000 replicates (`tests/bench/coverage.py`); here 200, so two standard errors below."""
    found = coverage.measure(*coverage.UNBOUNDED[case], 20, 200)
    assert coverage.coverage(found["`interval`"]) >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / 200)
    if case != "normal":
        assert coverage.coverage(found["percentile"]) < 0.92

"""Intervals of bounded values: closed forms at the bounds, scipy's binomial interval between them, and coverage."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stages.core import paired
from stages.core.paired import bounded
from stages.core.paired.bounded import bounded_interval
from stages.core.schema import Inference
from tests.bench import coverage

WOMEN = np.repeat(np.arange(20), 4)
UNSEEN = 1 - 0.025 ** (1 / 20)  # a rate that 20 women miss with probability .025: .168


def test_women_who_all_agree():
    assert bounded_interval(np.ones(80), WOMEN, (0, 1), 0.95) == pytest.approx((1 - UNSEEN, 1))
    assert bounded_interval(np.zeros(80), WOMEN, (0, 1), 0.95) == pytest.approx((0, UNSEEN))
    assert bounded_interval(np.zeros(80), WOMEN, (-1, 1), 0.95) == pytest.approx((-UNSEEN, UNSEEN))
    assert bounded_interval(np.ones(80), WOMEN, (-1, 1), 0.95) == pytest.approx((1 - np.hypot(UNSEEN, UNSEEN), 1))
    assert bounded_interval(np.zeros(80), WOMEN, (-2, 2), 0.95) == pytest.approx((-2 * UNSEEN, 2 * UNSEEN))


def test_clopper_pearson_equals_scipy():
    hits, size = np.arange(11), 10
    low, high = bounded.clopper_pearson(hits / size, np.full(11, float(size)), 0.025)
    for k in hits:
        exact = stats.binomtest(k, size).proportion_ci(method="exact")
        assert (low[k], high[k]) == pytest.approx((exact.low, exact.high))


def test_effective_size_counts_women_if_their_images_are_alike(rng):
    """One image a woman: the size is W - 1. Four equal images a woman add nothing but the ratio of the t quantiles."""
    outcome = np.array([1.0] * 14 + [0.0] * 6)
    sums = np.stack([outcome, 0 * outcome, outcome], axis=1)
    assert bounded.effective_sizes(sums, np.ones(20), 0.025) == pytest.approx([19, 20, 19])
    ratio = stats.t.ppf(0.975, 79) / stats.t.ppf(0.975, 19)
    alike = bounded.effective_sizes(4 * sums, np.full(20, 4), 0.025)
    assert alike == pytest.approx([19 * ratio**2, 20, 19 * ratio**2])
    independent = rng.binomial(4, 0.7, size=20).astype(float)
    sums = np.stack([independent, 0 * independent, independent], axis=1)
    assert 35 < bounded.effective_sizes(sums, np.full(20, 4), 0.025)[0] < 110  # 80 images


def test_a_part_that_never_occurs_has_the_size_of_the_other_part(rng):
    """Images of a woman vary independently: that no image got worse then speaks of images, not only of women."""
    sums = np.stack([rng.binomial(4, 0.5, size=20), np.zeros(20)], axis=1)
    sizes = bounded.effective_sizes(np.column_stack([sums, sums.sum(1)]), np.full(20, 4), 0.025)
    assert sizes[1] == sizes[2] == sizes[0] > 20


def test_gains_mirror_losses(rng):
    values = rng.choice([-1.0, 0, 1], p=[0.1, 0.6, 0.3], size=80)
    low, high = bounded_interval(values, WOMEN, (-1, 1), 0.95)
    assert bounded_interval(-values, WOMEN, (-1, 1), 0.95) == pytest.approx((-high, -low))
    assert low < values.mean() < high


def test_gains_and_losses_that_exclude_each_other_are_joined_by_their_correlation():
    """Forty women gain or lose: the parts are one coin, their correlation is -1, and the interval is the coin's."""
    values = np.array([1.0, -1.0] * 20)
    low, high = bounded_interval(values, np.arange(40), (-1, 1), 0.95)
    coin = bounded.clopper_pearson(np.array([0.5]), np.array([39.0]), 0.025)
    assert (low, high) == pytest.approx((2 * coin[0][0] - 1, 2 * coin[1][0] - 1))


def test_values_outside_their_bounds_are_refused():
    with pytest.raises(ValueError, match=r"outside their bounds \(0, 1\)"):
        bounded_interval(np.array([0.5, 1.5]), np.arange(2), (0, 1), 0.95)


def test_intervals_of_conditions_and_gap_have_a_width():
    """Every woman is right in both conditions: the accuracies end at 1, the gap is 0 with an interval around it."""
    images = [(pair, f"w{pair // 2}", "sad", "discovery", c) for pair in range(10) for c in ("semi_nude", "clothed")]
    table = pd.DataFrame(images, columns=["pair", "identity", "emotion", "split", "condition"])
    inference = Inference(
        confidence=0.95, alpha=0.05, min_gap=0, min_effect=0, min_readout=0, n_bootstrap=50, n_permutations=50, seed=0
    )
    found = paired.Pairs.from_images(table).summary(np.ones(20), inference, paired.SHARE)
    unseen = 1 - 0.025 ** (1 / 5)
    assert found["semi_nude"] == pytest.approx({"estimate": 1, "low": 1 - unseen, "high": 1})
    assert found["gap"] == pytest.approx({"estimate": 0, "low": -unseen, "high": unseen})


@pytest.mark.slow
@pytest.mark.parametrize("case", ["accuracy 0.98, rho 0.3", "gain .02, rho 0.3", "gain .47, loss .01, rho 0.1"])
def test_coverage_with_bounds(case):
    """At least .93 in 1,000 replicates (`tests/bench/coverage.py`); here 200, so two standard errors below."""
    found = coverage.measure(*coverage.OUTCOMES[case], 20, 200)
    assert coverage.coverage(found["`interval`"]) >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / 200)
    assert (np.diff(found["`interval`"]) > 0).all()
    if "gain .47" not in case:
        assert coverage.coverage(found["percentile"]) < 0.8

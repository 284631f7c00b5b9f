"""Rank correlation equals scipy's, row by row."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stages.core.checks.rank_correlation import agreement, spearman


def test_equals_scipy_with_ties(rng):
    a, b = rng.integers(0, 4, size=(2, 6, 30))
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    assert spearman(a, b) == pytest.approx(expected)


def test_a_constant_row_has_none(rng):
    found = spearman(np.stack([np.ones(5), np.arange(5.0)]), np.stack([np.arange(5.0), -np.arange(5.0)]))
    assert np.isnan(found[0]) and found[1] == pytest.approx(-1)


def test_agreement_is_the_mean_of_spearmans_correlations(rng):
    a, b = rng.normal(size=(2, 6, 3, 4)).round(1)  # some ties
    expected = [stats.spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b, strict=True)]
    assert agreement(a, b) == pytest.approx(np.mean(expected))
    assert agreement(a, a) == pytest.approx(1)
    assert agreement(a, -a) == pytest.approx(-1)


def test_a_constant_map_agrees_with_nothing(rng):
    assert agreement(np.ones((2, 3, 3)), rng.normal(size=(2, 3, 3))) == 0

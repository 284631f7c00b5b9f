"""Rank correlation equals scipy's, row by row."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stages.core.checks.rank_correlation import spearman


def test_equals_scipy_with_ties(rng):
    a, b = rng.integers(0, 4, size=(2, 6, 30))
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    assert spearman(a, b) == pytest.approx(expected)


def test_a_constant_row_has_none(rng):
    found = spearman(np.stack([np.ones(5), np.arange(5.0)]), np.stack([np.arange(5.0), -np.arange(5.0)]))
    assert np.isnan(found[0]) and found[1] == pytest.approx(-1)

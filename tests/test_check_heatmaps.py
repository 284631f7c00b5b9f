"""Agreement of maps, and the baselines."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stages import check_heatmaps


def test_agreement_is_the_mean_of_spearmans_correlations(rng):
    a, b = rng.normal(size=(2, 6, 3, 4)).round(1)  # some ties
    expected = [stats.spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b, strict=True)]
    assert check_heatmaps.agreement(a, b) == pytest.approx(np.mean(expected))
    assert check_heatmaps.agreement(a, a) == pytest.approx(1)
    assert check_heatmaps.agreement(a, -a) == pytest.approx(-1)


def test_a_constant_map_agrees_with_nothing(rng):
    assert check_heatmaps.agreement(np.ones((2, 3, 3)), rng.normal(size=(2, 3, 3))) == 0

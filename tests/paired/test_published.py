"""The published study's tests, equal to scipy's; and what its tables say."""

from __future__ import annotations

import pytest
from scipy import stats

from stages.core import paired
from stages.core.report import published


def test_published_block_equals_scipy(rng):
    a, b = rng.exponential(size=80) * (rng.random(80) < 0.4), rng.exponential(size=70)
    found = paired.published_tests(a, b)
    ks, mwu = stats.ks_2samp(a, b), stats.mannwhitneyu(a, b)
    assert (found["ks_statistic"], found["ks_p"]) == (ks.statistic, ks.pvalue)
    assert found["mwu_p"] == mwu.pvalue
    greater = (a[:, None] > b).mean() + 0.5 * (a[:, None] == b).mean()
    assert found["auc"] == pytest.approx(greater)
    assert found["cliffs_delta"] == pytest.approx((a[:, None] > b).mean() - (a[:, None] < b).mean())


def test_the_published_tables_say_what_we_read_off_them():
    training, tests = published.TRAINING, published.TESTS
    slope = (training["total"] - training["recon"]) / training["l0_fraction"]
    assert slope.to_numpy() == pytest.approx(published.SPARSITY_COEFFICIENT, abs=0.05e-3)
    assert (2 * tests["auc"] - 1).to_numpy() == pytest.approx(tests["cliffs_delta"].to_numpy(), abs=1.01e-3)
    assert tests["cliffs_delta"].abs().max() < 0.147  # "negligible" by the usual convention

"""Paired inference: equal to scipy where scipy can do it, and error rates that hold where it cannot."""

from __future__ import annotations

import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from scipy import stats

from stages.core import paired
from stages.core.report import published
from tests.imports import ROOT


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


def test_signed_ranks_equal_scipy(rng):
    differences = rng.integers(-3, 4, size=(30, 12)) + 0.0  # ties and zeros
    rank_biserial, p = paired.signed_ranks(differences)
    for j, column in enumerate(differences.T):
        expected = stats.wilcoxon(column, zero_method="wilcox", correction=False, method="asymptotic")
        assert p[j] == pytest.approx(expected.pvalue)
        kept = column[column != 0]
        ranks = stats.rankdata(np.abs(kept))
        assert rank_biserial[j] == pytest.approx((ranks[kept > 0].sum() - ranks[kept < 0].sum()) / ranks.sum())


def test_sign_flips_equal_the_exact_distribution():
    """Six women, all 64 sign patterns: the Monte-Carlo p comes out near the exact one."""
    rng = np.random.default_rng(3)
    differences = rng.normal(0.6, 1, size=(12, 1))
    women = np.repeat(np.arange(6), 2)
    sums = differences[:, 0].reshape(6, 2).sum(1)
    flips = np.array(list(product([-1, 1], repeat=6)))
    exact = (np.abs(flips @ sums) >= abs(sums.sum()) - 1e-12).mean()
    found = paired.paired_tests(differences, women, n_permutations=20_000, n_bootstrap=10)
    assert found["p"].iloc[0] == pytest.approx(exact, abs=0.02)


def test_t_is_the_one_sample_t_of_women():
    rng = np.random.default_rng(0)
    differences = rng.normal(0.3, 1, size=(20, 3))
    found = paired.paired_tests(differences, np.arange(20), n_permutations=10, n_bootstrap=10)
    assert found["t"].to_numpy() == pytest.approx(stats.ttest_1samp(differences, 0).statistic)


def test_zeros_one_woman_and_bad_values():
    found = paired.paired_tests(np.zeros((6, 2)), np.repeat([0, 1, 2], 2), n_permutations=50, n_bootstrap=50)
    assert (found[["p", "p_max_t", "wilcoxon_p", "q"]] == 1).all().all()
    assert (found[["mean", "t", "rank_biserial"]] == 0).all().all()
    with pytest.raises(paired.TooFewWomen, match="one woman only"):
        paired.paired_tests(np.ones((4, 2)), np.zeros(4))
    with pytest.raises(paired.TooFewWomen, match="one woman only"):
        paired.max_t(np.ones((4, 2)), np.zeros(4), n_permutations=9, seed=0)
    with pytest.raises(ValueError, match="not finite"):
        paired.paired_tests(np.full((4, 2), np.nan), np.arange(4))


def test_the_smallest_p():
    assert paired.smallest_p(5, 10_000) == 2 / 32
    assert paired.smallest_p(100, 999) == 1 / 1000


@pytest.mark.slow
def test_family_wise_error_holds_for_correlated_latents_and_unequal_women():
    rng = np.random.default_rng(1)
    women = np.repeat(np.arange(15), rng.integers(1, 8, 15))
    mixing = rng.normal(size=(5, 60))
    false = 0
    n = 400
    for replicate in range(n):
        woman_effect = rng.normal(size=(15, 5))[women]
        values = (woman_effect + rng.normal(size=(len(women), 5))) @ mixing + rng.normal(size=(len(women), 60))
        found = paired.paired_tests(values, women, n_permutations=199, n_bootstrap=1, seed=replicate)
        false += (found["p_max_t"] <= 0.05).any()
    assert false / n <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n)


@pytest.mark.slow
def test_power_at_one_standard_deviation():
    rng = np.random.default_rng(2)
    women = np.repeat(np.arange(20), 7)
    hits = 0
    for replicate in range(30):
        values = rng.normal(size=(140, 500))
        values[:, 0] += 1
        found = paired.paired_tests(values, women, n_permutations=499, n_bootstrap=1, seed=replicate)
        hits += found["p_max_t"].iloc[0] <= 0.05
    assert hits / 30 >= 0.9


def test_bootstrap_interval_covers_and_resamples_women():
    rng = np.random.default_rng(4)
    women = np.repeat(np.arange(30), 4)
    covered = 0
    for seed in range(200):
        values = rng.normal(size=30)[women] + 0.1 * rng.normal(size=120)
        found = paired.interval(values, women, n_bootstrap=400, confidence=0.95, seed=seed)
        covered += found.low <= 0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


@pytest.mark.slow
def test_flipping_signs_by_matrix_product_beats_a_loop_a_hundredfold():
    """16,384 latents x 140 pairs x 10,000 flips, in a process whose memory is measured; scipy's loop on two latents."""
    script = """
import re, time
from pathlib import Path
import numpy as np
from scipy import stats
from stages.core import paired
rng = np.random.default_rng(0)
women, values = np.repeat(np.arange(20), 7), rng.normal(size=(140, 16_384))
sums, _ = paired.by_cluster(values, women)
start = time.perf_counter()
p = paired.paired_tests(values, women, n_permutations=10_000, n_bootstrap=10)["p"]
ours = (time.perf_counter() - start) / 16_384
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])  # rusage has the parent's
start = time.perf_counter()
for latent in range(2):
    found = stats.permutation_test(
        (sums[:, latent],), np.sum, permutation_type="samples", n_resamples=10_000, vectorized=False, rng=0
    )
    assert abs(found.pvalue - p[latent]) < 0.03, (found.pvalue, p[latent])
print((time.perf_counter() - start) / 2 / ours, peak / 2**20)
"""
    ratio, peak_gib = map(float, subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True).split())
    assert ratio >= 100
    assert peak_gib < 2

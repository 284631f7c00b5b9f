"""Sign flips: equal to scipy where scipy can do it, and error rates that hold where it cannot."""

from __future__ import annotations

import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from scipy import stats

from stages.core import paired
from tests.imports import ROOT


def test_signed_ranks_equal_scipy(rng):
    differences = rng.integers(-3, 4, size=(30, 12)) + 0.0  # ties and zeros
    rank_biserial, p = paired.signed_ranks(differences)
    for j, column in enumerate(differences.T):
        expected = stats.wilcoxon(column, zero_method="wilcox", correction=False, method="asymptotic")
        assert p[j] == pytest.approx(expected.pvalue)
        kept = column[column != 0]
        ranks = stats.rankdata(np.abs(kept))
        assert rank_biserial[j] == pytest.approx((ranks[kept > 0].sum() - ranks[kept < 0].sum()) / ranks.sum())


@pytest.mark.parametrize("n_women", [2, 6, 12])
def test_few_women_have_all_patterns_of_signs(n_women):
    rng = np.random.default_rng(3)
    women = np.repeat(np.arange(n_women), 2)
    differences = rng.normal(0.6, 1, size=(2 * n_women, 2))
    sums, _ = paired.by_cluster(differences, women)
    flips = np.array(list(product([-1, 1], repeat=n_women)))
    size = np.abs(flips @ sums) / np.sqrt(np.square(sums).sum(0))
    observed = np.abs(sums.sum(0)) / np.sqrt(np.square(sums).sum(0)) - 1e-12
    found = paired.paired_tests(differences, women, n_permutations=7, n_bootstrap=10)
    assert found["p"].to_numpy() == pytest.approx((size >= observed).mean(0))
    assert found["p_max_t"].to_numpy() == pytest.approx([(size.max(1) >= each).mean() for each in observed])


def test_many_women_have_random_patterns_of_signs():
    rng = np.random.default_rng(3)
    differences = rng.normal(0.5, 1, size=(14, 1))
    flips = np.array(list(product([-1, 1], repeat=14)))
    exact = (np.abs(flips @ differences[:, 0]) >= abs(differences.sum()) - 1e-12).mean()
    found = paired.paired_tests(differences, np.arange(14), n_permutations=20_000, n_bootstrap=10)
    assert found["p"].iloc[0] == pytest.approx(exact, abs=0.01)


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
    assert paired.smallest_p(12, 99) == 2 / 4096
    assert paired.smallest_p(13, 99) == 1 / 100
    found = paired.paired_tests(np.ones((5, 1)), np.arange(5), n_permutations=99, n_bootstrap=10)
    assert found["p_max_t"].iloc[0] == paired.smallest_p(5, 99)


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

"""The test of harm: equal to a plain implementation, blind where it must be, and error rates that hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stages.core.paired import bootstrap, romano_wolf
from stages.core.paired.romano_wolf import harm_p
from tests.bench import family_wise_error as bench

SETTINGS = {"alpha": 0.05, "min_effect": 0.0, "n_bootstrap": 200, "seed": 0}


def plain_step_down(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Romano & Wolf's algorithm as it is written: test the largest t, remove its latent, test the next one."""
    observed = stats.ttest_1samp(values, 0).statistic
    resamples = [np.repeat(values, drawn, axis=0) for drawn in weights.astype(int)]
    t = np.array([stats.ttest_1samp(resample, values.mean(0)).statistic for resample in resamples])
    p, left, last = np.ones(values.shape[1]), set(range(values.shape[1])), 0.0
    while left:
        best = max(left, key=lambda j: observed[j])
        exceeding = (t[:, sorted(left)].max(1) >= observed[best]).sum()
        p[best] = last = max(last, (1 + exceeding) / (1 + len(weights)))
        left.remove(best)
    return p


def test_step_down_equals_a_plain_implementation(rng, monkeypatch):
    values = rng.normal(np.linspace(-1, 2, 6), 1, size=(11, 6))
    weights = bootstrap.resample_women(11, 150, seed=2)
    monkeypatch.setattr(bootstrap, "CHUNK_VALUES", 4 * 4 * 150)  # four latents at once
    assert romano_wolf.step_down(values, np.ones(11), weights) == pytest.approx(plain_step_down(values, weights))


def test_all_saes_are_one_family(rng):
    women = np.repeat(np.arange(12), 3)
    first, second = rng.normal(0.4, 1, size=(36, 5)), rng.normal(0, 1, size=(36, 200))
    together = harm_p([first, second], women, **SETTINGS)
    joined = harm_p(iter([np.concatenate([first, second], axis=1)]), women, **SETTINGS)
    assert np.concatenate(together) == pytest.approx(joined[0])
    alone = harm_p([first], women, **SETTINGS)[0]
    assert (together[0] >= alone).all() and (together[0] > alone).any()


def test_only_harm_counts(rng):
    gaps = rng.normal(1.0, 0.3, size=(20, 2)) * [1, -1]
    p = harm_p([gaps], np.arange(20), **SETTINGS)[0]
    assert p[0] == 1 / 201
    assert p[1] > 0.9


def test_latents_that_hardly_act_or_act_on_few_women_are_not_tested(rng):
    """Mean |gap| .009 is below .01. Four equal women are four women. A latent that never acts is never tested."""
    gaps = np.zeros((20, 4))
    gaps[:, 0] = rng.normal(0.5, 0.1, size=20)
    gaps[:, 1] = 0.009
    gaps[:4, 2] = 1.0
    p = harm_p([gaps], np.arange(20), alpha=0.05, min_effect=0.01, n_bootstrap=200, seed=0)[0]
    assert p.tolist() == [1 / 201, 1, 1, 1]
    assert romano_wolf.effective_women(gaps)[1:].tolist() == pytest.approx([20, 4, 0])


def test_the_choice_of_tested_latents_ignores_signs(rng):
    gaps, signs = rng.normal(size=(15, 50)) * 0.02, rng.choice([-1, 1], size=(15, 1))
    tested = [romano_wolf.in_family(values, np.ones(15), 0.05, 0.015) for values in (gaps, gaps * signs)]
    assert (tested[0] == tested[1]).all() and 0 < tested[0].sum() < 50


def test_too_few_women_can_name_nothing():
    """The signs of four women have no p below 1/16, and those of seven none below 1/128."""
    for n_women, alpha in ((4, 0.05), (7, 0.005)):
        settings = {**SETTINGS, "alpha": alpha}
        assert (harm_p([np.ones((n_women, 3))], np.arange(n_women), **settings)[0] == 1).all()
        assert (harm_p([np.ones((n_women + 1, 3))], np.arange(n_women + 1), **settings)[0] <= alpha).all()
    assert (harm_p([np.zeros((8, 3))], np.arange(8), **SETTINGS)[0] == 1).all()


def test_a_small_level_keeps_the_latents_that_show_the_tails():
    """Five of twelve women carry a latent: enough to be named at .05. At .005 it stays in the family, unnamed."""
    sums = np.array([[1.0]] * 5 + [[0.0]] * 7)
    for alpha, named in ((0.05, True), (0.005, False)):
        assert romano_wolf.in_family(sums, np.ones(12), alpha, 0.01).item()
        assert romano_wolf.nameable(sums, alpha).item() == named
    assert not romano_wolf.in_family(sums[1:], np.ones(11), 0.05, 0.01).item()


@pytest.mark.slow
def test_rare_strong_help_is_held_at_a_small_level_and_few_women():
    """With a family of only those latents that can be named at .005, 7 % of such draws named one."""
    shape = bench.SHAPES["rare strong help, frequent weak harm"]
    families = bench.null_families(shape, women=12, latents=500, n=100)
    assert sum((family.p_by_rule(0.005)["harm_p"] <= 0.005).any() for family in families) <= 2


def test_women_who_all_agree_are_as_significant_as_can_be():
    p = harm_p([np.full((9, 1), 0.2)], np.arange(9), **SETTINGS)[0]
    assert p == 1 / 201


@pytest.mark.slow
def test_skewed_gaps_with_a_mean_of_zero_are_not_named():
    """Few women are helped much, many harmed a little. Sign flips name such latents, most of the time."""
    named = {"flips, harm": 0, "harm_p": 0}
    shape = bench.SHAPES["rare strong help, frequent weak harm"]
    for family in bench.null_families(shape, women=20, latents=200, n=40):
        for rule, p in family.p_by_rule(0.05).items():
            if rule in named:
                named[rule] += (p <= 0.05).any()
    assert named["harm_p"] <= 5  # 40 x .05 and two standard errors
    assert named["flips, harm"] >= 30


@pytest.mark.slow
def test_power_at_one_and_a_half_standard_deviations():
    families = bench.harmful_families(bench.SHAPES["normal"], 1.5, women=20, latents=200, n=20)
    p = np.array([family.p_by_rule(0.05)["harm_p"][: bench.N_HARMFUL] for family in families])
    assert (p <= 0.05).mean() >= 0.7


def test_the_bench_applies_the_rule_in_use(rng):
    """The same p: the tables are those of `harm_p`, and not of a copy that drifted away."""
    sums, counts = bench.draw(rng, bench.SHAPES["half normal, half 95 % zeros"], 12, 40)
    family = bench.Family(rng, sums, counts)
    women, pairs = np.repeat(np.arange(12), counts), np.repeat(sums / counts[:, None], counts, axis=0)
    settings = {"alpha": 0.05, "min_effect": bench.MIN_EFFECT, "n_bootstrap": bench.N_RESAMPLES}
    ours = harm_p([pairs], women, seed=family.seed, **settings)[0]
    named = family.means > bench.MIN_EFFECT
    assert family.p_by_rule(0.05)["harm_p"][named] == pytest.approx(ours[named])

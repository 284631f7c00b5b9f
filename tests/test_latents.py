"""Seeing is not bias: which latents stand on which list."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stages.core import latents, paired

TESTS = (
    pd.DataFrame(
        [
            # act_mean, act_p, eff_mean, eff_high, eff_p
            (0.9, 0.001, 0.00, 0.010, 0.900),  # 0 sees the condition, does nothing to the readout
            (0.5, 0.001, -0.30, -0.200, 0.001),  # 1 sees it and harms
            (0.0, 0.900, -0.50, -0.400, 0.001),  # 2 does not differ in activation, yet harms
            (0.0, 0.900, -0.009, -0.008, 0.001),  # 3 harms for certain, but by next to nothing
            (0.0, 0.900, -0.60, -0.500, 0.200),  # 4 is not significant
            (-0.7, 0.001, 0.40, 0.500, 0.001),  # 5 fires on the clothed twin, and helps the semi-nude one
        ],
        columns=["act_mean", "act_p_max_t", "eff_mean", "eff_high", "eff_p_max_t"],
    )
    .rename_axis("latent")
    .reset_index()
)


def test_bias_latents_harm_significantly_and_by_enough():
    assert latents.ranked(TESTS, "bias", alpha=0.05, min_effect=0.01).tolist() == [2, 1]


def test_without_a_smallest_effect_the_negligible_one_is_named_too():
    assert latents.ranked(TESTS, "bias", alpha=0.05, min_effect=0.0).tolist() == [2, 1, 3]


def test_perception_latents_rise_on_the_semi_nude_twin_whatever_they_do():
    assert latents.ranked(TESTS, "perception", alpha=0.05, min_effect=0.01).tolist() == [0, 1]


N_WOMEN, N_EXPRESSIONS, N_LATENTS = 20, 4, 150
CLOTHING, BIASED = np.arange(10), np.arange(10, 13)


def study(bias: float, seed: int) -> pd.DataFrame:
    """Tests of synthetic codes: ten latents see clothing, three more harm semi-nude women by half a nat x bias."""
    rng = np.random.default_rng(seed)
    women = np.repeat(np.arange(N_WOMEN), N_EXPRESSIONS)

    def differences() -> np.ndarray:
        of_woman = rng.normal(size=(N_WOMEN, N_LATENTS))[women]
        return 0.1 * of_woman + 0.2 * rng.normal(size=(len(women), N_LATENTS))

    activation, effect = differences(), differences()
    activation[:, np.concatenate([CLOTHING, BIASED])] += 1
    effect[:, BIASED] -= 0.5 * bias
    settings = {"n_permutations": 199, "n_bootstrap": 200, "seed": seed}
    tables = [
        paired.paired_tests(values, women, **settings).add_prefix(prefix)
        for prefix, values in (("act_", activation), ("eff_", effect))
    ]
    return pd.concat(tables, axis=1).assign(latent=np.arange(N_LATENTS))


def test_power_and_false_positives_over_the_planted_bias():
    """The sweep of planted bias in small: what the lists say when only the statistics are at work."""
    named = {
        bias: [latents.ranked(study(bias, seed), "bias", 0.05, 0.01) for seed in range(n)]
        for bias, n in ((0.0, 200), (0.3, 40), (0.9, 40))
    }
    false = np.mean([len(found) > 0 for found in named[0.0]])
    assert false <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)
    power = {bias: np.mean([np.isin(BIASED, found).mean() for found in runs]) for bias, runs in named.items()}
    assert power[0.9] >= 0.9
    assert power[0.0] < power[0.3] < power[0.9]
    wrong = [set(found) - set(BIASED) for runs in (named[0.3], named[0.9]) for found in runs]
    assert np.mean([len(extra) > 0 for extra in wrong]) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 80)


def test_latents_that_see_clothing_are_not_called_biased():
    for seed in range(20):
        tests = study(0.9, seed)
        assert set(CLOTHING) <= set(latents.ranked(tests, "perception", 0.05, 0.01))
        assert not set(CLOTHING) & set(latents.ranked(tests, "bias", 0.05, 0.01))

"""Seeing is not bias: which latents stand on which list."""

from __future__ import annotations

import pandas as pd

from stages.core import latents

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

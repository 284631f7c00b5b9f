"""Seeing is not bias: which latents stand on which list."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stages.core import paired, schema
from stages.core.latents import lists
from stages.core.latents.search import find_bias_latents, harmful_latents

INFERENCE = schema.Inference(
    confidence=0.95, alpha=0.05, min_effect=0.01, min_readout=0.0, n_bootstrap=200, n_permutations=199, seed=0
)  # fmt: skip
TESTS = (
    pd.DataFrame(
        [
            (-0.2, 0.001),  # 0 rises a little
            (-0.5, 0.001),  # 1 rises most
            (-0.9, 0.900),  # 2 is not significant
            (0.7, 0.001),  # 3 fires on the clothed twin
        ],
        columns=["act_mean", "act_p_max_t"],
    )
    .assign(act_low=-1.0, act_high=0.0)
    .rename_axis("latent")
    .reset_index()
)


def test_perception_latents_rise_on_the_semi_nude_twin_the_largest_first():
    found = lists.perception_latents(TESTS, alpha=0.05)
    assert list(found) == lists.COLUMNS
    assert found["latent"].tolist() == [1, 0] and found["mean"].tolist() == [-0.5, -0.2]


def gaps(*means: float, seed: int = 0) -> np.ndarray:
    """Effect gaps of twelve women, two pairs each, around the means given; above 0 the latent harms semi-nude women."""
    return np.array(means) + 0.002 * np.random.default_rng(seed).normal(size=(24, len(means)))


WOMEN = np.repeat(np.arange(12), 2)


def test_harmful_latents_lower_the_readout_for_certain_and_by_enough():
    found = harmful_latents(gaps(0.0, 0.3, 0.5, 0.009, -0.4), WOMEN, INFERENCE)
    assert found["latent"].tolist() == [2, 1]
    assert (found["low"] < found["mean"]).all() and (found["mean"] < found["high"]).all()
    every = INFERENCE.model_copy(update={"min_effect": 0.0})
    assert harmful_latents(gaps(0.0, 0.3, 0.5, 0.009, -0.4), WOMEN, every)["latent"].tolist() == [2, 1, 3]


def test_a_latent_hidden_by_others_is_found_once_they_are_edited():
    """Latent 2 does nothing while 0 saturates the readout, 3 nothing before 2 is gone; 1 never harms."""
    asked = []

    def effect_gaps(edited: list[int]) -> np.ndarray:
        asked.append(list(edited))
        return gaps(0.5, 0.0, 0.3 if 0 in edited else 0.0, 0.1 if 2 in edited else 0.0)

    found = find_bias_latents(effect_gaps, WOMEN, INFERENCE, n_per_step=2, n_most=10)
    assert found[["latent", "step"]].to_numpy().tolist() == [[0, 1], [2, 2], [3, 3]]
    assert asked == [[], [0], [0, 2], [0, 2, 3]]


def test_no_more_latents_than_asked_for_and_none_where_none_harms(tmp_path):
    harm = gaps(0.5, 0.4, 0.3, 0.2, 0.1)
    found = find_bias_latents(lambda edited: harm.copy(), WOMEN, INFERENCE, n_per_step=2, n_most=3)
    assert found["latent"].tolist() == [0, 1, 2] and found["step"].tolist() == [1, 1, 2]
    none = find_bias_latents(lambda edited: gaps(0.0, -0.1), WOMEN, INFERENCE, n_per_step=2, n_most=3)
    assert none.empty and list(none) == lists.COLUMNS
    none.to_csv(tmp_path / "none.csv", index=False)
    assert lists.load(tmp_path / "none.csv")["latent"].tolist() == []


N_WOMEN, N_EXPRESSIONS, N_LATENTS = 20, 4, 150
CLOTHING, BIASED = np.arange(10), np.arange(10, 13)


def study(bias: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bias and perception latents of synthetic codes: ten latents see clothing, and three more harm semi-nude women
    by half a nat x bias; the third of these harms only once the first two are edited."""
    rng = np.random.default_rng(seed)
    women = np.repeat(np.arange(N_WOMEN), N_EXPRESSIONS)

    def noise() -> np.ndarray:
        of_woman = rng.normal(size=(N_WOMEN, N_LATENTS))[women]
        return 0.1 * of_woman + 0.2 * rng.normal(size=(len(women), N_LATENTS))

    activation, effect = noise(), noise()
    activation[:, np.concatenate([CLOTHING, BIASED])] -= 1

    def effect_gaps(edited: list[int]) -> np.ndarray:
        shown = BIASED if set(BIASED[:2]) <= set(edited) else BIASED[:2]
        return effect + 0.5 * bias * np.isin(np.arange(N_LATENTS), shown)

    inference = INFERENCE.model_copy(update={"seed": seed})
    found = find_bias_latents(effect_gaps, women, inference, n_per_step=2, n_most=8)
    tests = paired.paired_tests(activation, women, n_permutations=199, n_bootstrap=1, seed=seed).add_prefix("act_")
    seen = lists.perception_latents(tests.assign(latent=np.arange(N_LATENTS)), INFERENCE.alpha)
    return found["latent"].to_numpy(), seen["latent"].to_numpy()


@pytest.mark.slow
def test_power_and_false_positives_over_the_planted_bias():
    """The sweep of planted bias in small: what the lists say when only the statistics are at work."""
    named = {bias: [study(bias, seed)[0] for seed in range(n)] for bias, n in ((0.0, 300), (0.3, 60), (0.9, 60))}
    false = np.mean([len(found) > 0 for found in named[0.0]])
    assert false <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)
    power = {bias: np.mean([np.isin(BIASED, found).mean() for found in runs]) for bias, runs in named.items()}
    assert power[0.9] >= 0.9
    assert power[0.0] < power[0.3] < power[0.9]
    steps = 3  # each step is tested at alpha: one for the first two, one for the third, one that ends the search
    wrong = [set(found) - set(BIASED) for found in named[0.9]]
    assert np.mean([len(extra) > 0 for extra in wrong]) <= 1 - 0.95**steps + 2 * np.sqrt(0.14 * 0.86 / 60)


def test_the_edit_taken_gains_most_of_those_within_the_cost():
    curve = pd.DataFrame(
        {"n_latents": [0, 4, 8], "net_gain": [0.0, 1.0, 2.0], "clothed_accuracy_loss": [0.0, 0.01, 0.03]}
    )
    assert lists.best_edit(curve, 0.05)["n_latents"] == 8
    assert lists.best_edit(curve, 0.02)["n_latents"] == 4
    assert lists.best_edit(curve, 0.0)["n_latents"] == 0
    assert lists.best_edit(curve[:1], 0.0)["n_latents"] == 0


def test_latents_that_see_clothing_are_not_called_biased():
    for seed in range(20):
        found, seen = study(0.9, seed)
        assert set(CLOTHING) <= set(seen)
        assert not set(CLOTHING) & set(found)

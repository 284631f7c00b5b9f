"""Seeing is not bias, and helping the twin is no harm: which latents stand on which list."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest

from stages.core import paired, schema
from stages.core.latents import lists
from stages.core.latents.search import find_step_by_step, harmful_latents, most_gaining
from stages.core.run.labels import CLOTHED, SEMI_NUDE

INFERENCE = schema.Inference(
    confidence=0.95,
    alpha=0.05,
    min_gap=0.1,
    min_effect=0.01,
    min_readout=0.0,
    n_bootstrap=200,
    n_permutations=199,
    seed=0,
)
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


def harm(*means: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Effects of latents that harm semi-nude women by the means given and do nothing to clothed ones: twelve women."""
    noise = 0.002 * np.random.default_rng(seed).normal(size=(24, len(means)))
    return {SEMI_NUDE: -np.array(means) - noise, CLOTHED: np.zeros((24, len(means)))}


WOMEN = np.repeat(np.arange(12), 2)
RANK = partial(harmful_latents, losing=SEMI_NUDE, clusters=WOMEN, inference=INFERENCE)


def test_harmful_latents_lower_the_readout_for_certain_and_by_enough():
    found = RANK(harm(0.0, 0.3, 0.5, 0.009, -0.4))
    assert found["latent"].tolist() == [2, 1]
    assert (found["low"] < found["mean"]).all() and (found["mean"] < found["high"]).all()
    every = INFERENCE.model_copy(update={"min_effect": 0.0})
    found = harmful_latents(harm(0.0, 0.3, 0.5, 0.009, -0.4), SEMI_NUDE, WOMEN, every)
    assert found["latent"].tolist() == [2, 1, 3]


def test_a_latent_that_helps_the_twin_more_does_no_harm():
    """Latent 0 harms semi-nude women. Latent 1 has the same gap, because it helps clothed women."""
    effects = harm(0.3, 0.0)
    effects[CLOTHED][:, 1] = 0.3 + 0.002 * np.random.default_rng(1).normal(size=24)
    assert RANK(effects)["latent"].tolist() == [0]


def test_the_losing_condition_may_be_the_clothed_one():
    mirrored = dict(zip((CLOTHED, SEMI_NUDE), harm(0.0, 0.3, -0.4).values(), strict=True))
    assert harmful_latents(mirrored, CLOTHED, WOMEN, INFERENCE)["latent"].tolist() == [1]
    assert harmful_latents(mirrored, SEMI_NUDE, WOMEN, INFERENCE).empty
    assert most_gaining(mirrored, CLOTHED)["latent"].tolist()[0] == 1


def test_a_ranking_without_a_test_takes_every_latent_that_gains_more_than_it_changes_the_twin():
    effects = harm(0.1, 0.3, -0.2, 0.25, 0.2)
    effects[CLOTHED][:, 0] = -0.3  # latent 0 harms clothed women more: no net gain, but the largest gain over both
    effects[CLOTHED][:, 3] = 0.4  # clothed women need latent 3 more than it harms semi-nude women
    effects[CLOTHED][:, 4] = 0.05
    found = most_gaining(effects, SEMI_NUDE)
    assert found["latent"].tolist() == [1, 4]
    assert found["mean"].tolist() == pytest.approx([0.3, 0.15], abs=0.02)
    assert most_gaining(effects, SEMI_NUDE, twins=False)["latent"].tolist() == [0, 1, 4]


def accept(edited: list[int], more: list[int]) -> bool:
    return True


def test_latents_of_a_step_are_accepted_together_or_each_alone():
    asked: list[tuple[list[int], list[int]]] = []

    def accepts(edited: list[int], more: list[int]) -> bool:
        asked.append((list(edited), more))
        return 1 not in more

    _, edited = find_step_by_step(
        lambda edited: harm(0.5, 0.4, 0.3, 0.2), np.arange(4), RANK, accepts, n_per_step=2, n_most=9
    )
    assert edited == [0, 2, 3]
    assert asked[0] == ([], [0, 1]) and ([], [0]) in asked and ([0], [1]) in asked
    assert ([0], [2, 3]) in asked and ([0], [2]) not in asked


def test_a_latent_hidden_by_others_is_found_once_they_are_edited():
    """Latent 22 does nothing while 20 saturates the readout, 23 nothing before 22 is gone; 21 never harms."""
    asked = []

    def effects(edited: list[int]) -> dict[str, np.ndarray]:
        asked.append(list(edited))
        return harm(0.5, 0.0, 0.3 if 20 in edited else 0.0, 0.1 if 22 in edited else 0.0)

    found, edited = find_step_by_step(effects, 20 + np.arange(4), RANK, accept, n_per_step=2, n_most=10)
    assert found[["latent", "step"]].to_numpy().tolist() == [[20, 1], [22, 2], [23, 3]]
    assert asked == [[], [20], [20, 22], [20, 22, 23]] and edited == [20, 22, 23]


def test_a_latent_that_is_not_accepted_stays_on_the_list_blocks_no_other_and_is_tried_again():
    """21 and 22 harm, but the other condition needs them; 21 can be edited once 23 is."""
    asked = []

    def effects(edited: list[int]) -> dict[str, np.ndarray]:
        asked.append(list(edited))
        return harm(0.5, 0.4, 0.3, 0.1)

    def accepts(edited: list[int], more: list[int]) -> bool:
        return more in ([20], [23]) or (more == [21] and 23 in edited)

    found, edited = find_step_by_step(effects, 20 + np.arange(4), RANK, accepts, n_per_step=1, n_most=10)
    assert found["latent"].tolist() == [20, 21, 22, 23]
    assert edited == [20, 23, 21]
    assert asked == [[], [20], [20, 23, 21]]


def test_no_more_latents_than_asked_for_and_none_where_none_harms(tmp_path):
    candidates = np.arange(5)
    search = partial(find_step_by_step, rank=RANK, accepts=accept, n_per_step=2, n_most=3)
    found, _ = search(lambda edited: harm(0.5, 0.4, 0.3, 0.2, 0.1), candidates)
    assert found["latent"].tolist() == [0, 1, 2] and found["step"].tolist() == [1, 1, 2]
    none, _ = search(lambda edited: harm(0.0, -0.1), candidates[:2])
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

    def effects(edited: list[int]) -> dict[str, np.ndarray]:
        shown = BIASED if set(BIASED[:2]) <= set(edited) else BIASED[:2]
        semi_nude = -effect - 0.5 * bias * np.isin(np.arange(N_LATENTS), shown)
        return {SEMI_NUDE: semi_nude, CLOTHED: np.zeros_like(semi_nude)}

    inference = INFERENCE.model_copy(update={"seed": seed})
    rank = partial(harmful_latents, losing=SEMI_NUDE, clusters=women, inference=inference)
    found, _ = find_step_by_step(effects, np.arange(N_LATENTS), rank, accept, n_per_step=2, n_most=8)
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


def test_latents_that_see_clothing_are_not_called_biased():
    for seed in range(20):
        found, seen = study(0.9, seed)
        assert set(CLOTHING) <= set(seen)
        assert not set(CLOTHING) & set(found)

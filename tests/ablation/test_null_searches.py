"""Searches on labels that mean nothing: what they search for, and how the edit stands beside them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stages.core.ablation import null_searches
from stages.core.ablation.arms import ArmInputs
from stages.core.latents.edit_curve import Gains
from stages.core.latents.edited_effects import EditedEffects
from stages.core.latents.edited_images import EditedImages, SearchLabels
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.pooling import Pooling
from stages.core.latents.selection import Selection
from stages.core.paired import Pairs
from stages.core.schema import Edit

EDIT = Edit.model_construct(kind="zero", factor=0.0, scope="all", n_per_step=2, max_cost=1.0)


@pytest.fixture
def real(spliced) -> EditedEffects:
    pairs = Pairs.from_images(spliced.data.table, "discovery")
    return EditedEffects(EditedImages(spliced, pairs, EDIT, np.zeros((2, 64))), np.arange(64))


@pytest.fixture
def inputs(spliced, tmp_path) -> ArmInputs:
    rows = spliced.data.audit_rows()
    pooling = Pooling(len(rows), 64, np.ones(len(rows), bool))
    f = spliced.sae.encode(spliced.audit.tokens(rows))
    pooling.add(f, f.mean(1))
    pooling.result().save(tmp_path / "pooled.zarr")
    tests = pd.DataFrame({"latent": np.arange(64), "mean_cls": 0.0, "mean_patch": 0.0, "firing": 0.1, "eff_mean": 0.0})
    chosen = Selection(
        layer=2,
        losing="semi_nude",
        edited_list="ranked",
        edited=tests.iloc[[4, 8, 15]],
        lists={},
        tests=tests,
        sae=spliced.sae,
        pooled_dpath=tmp_path / "pooled.zarr",
    )
    return ArmInputs(spliced, chosen, EDIT, seed=0)


def test_every_search_finds_as_many_latents_as_the_edit_has(inputs):
    found = null_searches.null_searches(inputs, 2, 1)
    assert {kind: sets.shape for kind, sets in found.items()} == {
        "labels_swapped": (2, 3),
        "emotions_shuffled": (1, 3),
        "wrong_emotion": (1, 3),
        "condition_ignored": (1, 3),
    }
    for sets in found.values():
        assert all(len(set(latents)) == 3 for latents in sets.tolist())
    assert list(null_searches.null_searches(inputs, 1, 0)) == ["labels_swapped", "condition_ignored"]
    assert null_searches.null_searches(inputs, 0, 0) == {}


def test_labels_are_swapped_woman_by_woman(real):
    flips, pairs = set(), real.images.pairs
    for seed in range(12):
        labels = null_searches.labels_swapped(real.images.spliced.data, pairs, np.random.default_rng(seed))
        of_women = pd.Series(labels.swapped).groupby(pairs.women)
        assert of_women.min().equals(of_women.max())
        flips.add(tuple(of_women.first()))
        truth, swapped = real([]), real([], labels)
        for pair, swap in enumerate(labels.swapped):
            for name, other in (("clothed", "semi_nude"), ("semi_nude", "clothed")):
                assert np.array_equal(swapped[name][pair], truth[other if swap else name][pair])
    assert len(flips) == 4  # two women: all four ways come up


def test_emotions_are_wrong_or_those_of_the_womans_other_pairs(real):
    data, pairs = real.images.spliced.data, real.images.pairs
    truth, n = data.emotion_index(pairs.semi_nude), len(pairs)
    wrong = null_searches.wrong_emotion(data, pairs, np.random.default_rng(0)).emotions
    assert (wrong[:n] != truth).all() and np.array_equal(wrong[:n], wrong[n:])
    shuffled = null_searches.emotions_shuffled(data, pairs, np.random.default_rng(0)).emotions
    for woman in np.unique(pairs.women):
        own = pairs.women == woman
        assert sorted(shuffled[:n][own]) == sorted(truth[own])


def test_a_search_on_other_labels_judges_its_edits_by_these_labels(real):
    """R of a wrong emotion, counted by hand from the probabilities; and twins that change places."""
    spliced, pairs = real.images.spliced, real.images.pairs
    wrong = null_searches.wrong_emotion(spliced.data, pairs, np.random.default_rng(0))
    swap = null_searches.labels_swapped(spliced.data, pairs, np.random.default_rng(1))
    edited = [3, 17]
    plain, about_wrong, swapped = (
        Gains(real.images, "semi_nude", labels).measure(edited) for labels in (SearchLabels(), wrong, swap)
    )
    change = LatentEdit.from_params(EDIT, np.array(edited), np.zeros((2, 64)), spliced.clip.device)
    embedded = spliced.embeddings(pairs.rows, spliced.edit_arm(change, "all"))
    logits = float(spliced.clip.model.logit_scale.exp()) * embedded @ spliced.readout.prompts.cpu().numpy().T
    R = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    of_wrong = pairs.split(R[np.arange(len(R)), wrong.emotions])
    assert about_wrong["R_losing"] == pytest.approx(of_wrong["semi_nude"].mean(), abs=1e-4)
    of_truth = pairs.split(R[np.arange(len(R)), spliced.data.emotion_index(pairs.rows)])
    assert plain["R_other"] == pytest.approx(of_truth["clothed"].mean(), abs=1e-4)
    expected = np.where(swap.swapped, of_truth["clothed"], of_truth["semi_nude"]).mean()
    assert swapped["R_losing"] == pytest.approx(expected, abs=1e-4)


def test_the_edit_is_compared_with_the_gains_of_the_searches():
    gains = pd.DataFrame(
        {
            "search": ["labels_swapped"] * 4 + ["condition_ignored"],
            "accuracy_gain": [0.1, 0.2, 0.3, 0.6, 0.7],
            "R_gain": [0.0, 0.0, 0.1, 0.2, 2.0],
            "accuracy_cost": [0.1, 0.1, 0.3, 0.5, 0.0],
            "R_cost": [0.0] * 5,
        }
    )
    found = null_searches.judge(gains, {"accuracy": 0.5, "R": 1.0})
    swapped = found["labels_swapped"]
    assert swapped["n"] == 4
    assert swapped["p_accuracy"] == pytest.approx(2 / 5) and swapped["p_R"] == pytest.approx(1 / 5)
    assert swapped["median_accuracy_gain"] == pytest.approx(0.25) and swapped["largest_R_gain"] == pytest.approx(0.2)
    assert swapped["median_accuracy_cost"] == pytest.approx(0.2)
    assert "p_accuracy" not in found["condition_ignored"]
    assert null_searches.judge(gains[:0], {"accuracy": 0.5}) == {}

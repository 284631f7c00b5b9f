"""The effects of latents while others are edited: what a small change of them does there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.core.latents.edited_effects import EditedEffects, candidate_latents
from stages.core.latents.edited_images import EditedImages, SearchLabels
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.pooling import Pooling
from stages.core.paired import Pairs
from stages.core.schema import Edit

EDIT = Edit.model_construct(kind="zero", factor=0.0, scope="all")


def arms(spliced, edited: list[int], latent: int, h: float):
    """The edit alone, and with one further latent scaled by 1 - h, from its activation on the unedited tokens."""
    edit = spliced.edit_arm(LatentEdit(latents=torch.tensor(edited, dtype=torch.long)), "all")

    def scaled(batch):
        f = spliced.sae.encode(batch.tokens, torch.tensor([latent]))
        return edit(batch) - h * f @ spliced.sae.W_dec[[latent]]

    return [edit, scaled]


@pytest.mark.parametrize("edited", [[], [5, 33]])
def test_an_effect_is_the_first_order_loss_of_zeroing_in_the_edited_model(spliced, edited):
    pairs, candidates = Pairs.from_images(spliced.data.table), np.array([2, 5, 9, 21, 33, 60])
    effects = EditedEffects(EditedImages(spliced, pairs, EDIT, np.zeros((2, 64))), candidates)(edited)
    both = np.concatenate([effects["semi_nude"], effects["clothed"]])
    free = ~np.isin(candidates, edited)
    column = int(np.flatnonzero(free)[np.abs(both[:, free]).sum(0).argmax()])
    h = 1e-2
    R = spliced.outcomes(pairs.rows, arms(spliced, edited, int(candidates[column]), h)).R
    assert (R[1] - R[0]) / -h == pytest.approx(both[:, column], rel=0.05, abs=2e-3)
    assert np.abs(both[:, column]).max() > 1e-3


def test_effects_are_about_the_emotion_that_is_asked_for(spliced):
    pairs = Pairs.from_images(spliced.data.table)
    truth = spliced.data.emotion_index(pairs.rows)
    own = EditedEffects(EditedImages(spliced, pairs, EDIT, np.zeros((2, 64))), np.arange(64))
    told, other = own([], SearchLabels(truth)), own([], SearchLabels(1 - truth))
    assert np.array_equal(own([])["clothed"], told["clothed"])
    assert not np.allclose(own([])["clothed"], other["clothed"])


def test_candidates_fire_on_two_women():
    f = torch.zeros(6, 3, 4)  # three women, two images each
    f[0, 1, 0] = f[1, 0, 0] = 1.0  # latent 0: one woman
    f[0, 1, 1] = f[2, 0, 1] = 1.0  # latent 1: two women
    f[4, 2, 2] = f[5, 2, 2] = f[3, 0, 2] = 1.0  # latent 2: two women
    pooling = Pooling(6, 4, np.ones(6, bool))
    pooling.add(f, torch.zeros(6, 4))
    assert candidate_latents(pooling.result(), np.arange(6), np.repeat(list("abc"), 2)).tolist() == [1, 2]

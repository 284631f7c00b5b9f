"""Maps of latents: they add up to the effects, and to what an edit does to R."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.core.latents.effects import attribution_patching_effect
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.spliced_clip import original
from stages.core.readout_maps.latent_maps import edit_maps, effect_maps

ROWS = np.array([1, 4, 6, 11, 14])
LATENTS = np.array([5, 9, 21, 33])


def test_effects_at_tokens_add_up_to_the_effect(spliced):
    maps, at_cls = effect_maps(spliced, ROWS, LATENTS)
    tokens = spliced.audit.tokens(ROWS)
    gradient = spliced.gradient(tokens, spliced.truth(ROWS))
    f = spliced.sae.encode(tokens)
    expected = attribution_patching_effect(spliced.sae.W_dec, f, gradient)[:, LATENTS].numpy()
    assert maps.sum((2, 3)) + at_cls == pytest.approx(expected, abs=1e-5)
    assert np.abs(expected).max() > 1e-2
    token, latent = 1 + 4 * 2 + 3, 2  # the patch in row 2 and column 3, by the chain rule
    slope = (gradient[:, token] * spliced.sae.W_dec[LATENTS[latent]]).sum(-1) * f[:, token, LATENTS[latent]]
    assert maps[:, latent, 2, 3] == pytest.approx(slope.numpy(), abs=1e-6)


@pytest.mark.parametrize(("kind", "scope"), [("zero", "all"), ("scale", "patches"), ("patch", "all"), ("zero", "bust")])
def test_the_parts_of_an_edit_add_up_to_what_it_does_to_R(spliced, kind, scope):
    def edit(latents):
        return spliced.edit_arm(LatentEdit(latents=torch.tensor(latents), kind=kind, factor=0.5), scope)

    parts = [edit([latent]) for latent in LATENTS]
    maps, at_cls, change = edit_maps(spliced, ROWS, edit(LATENTS), parts, n_steps=16, batch_size=7)
    R = spliced.outcomes(ROWS, [original, edit(LATENTS)]).R
    assert change == pytest.approx(R[0] - R[1], abs=1e-5)
    assert maps.sum((1, 2, 3)) + at_cls.sum(1) == pytest.approx(change, rel=0.02, abs=1e-3)
    assert np.abs(change).max() > 1e-2
    whole, whole_cls, _ = edit_maps(spliced, ROWS, edit(LATENTS), [edit(LATENTS)], n_steps=16, batch_size=7)
    assert whole[:, 0] == pytest.approx(maps.sum(1), abs=1e-5)
    assert whole_cls[:, 0] == pytest.approx(at_cls.sum(1), abs=1e-5)
    if scope == "bust":
        outside = spliced.audit.bust(ROWS) < 0.5
        assert not maps.transpose(0, 2, 3, 1)[outside].any() and not at_cls.any()


def test_maps_of_effects_lie_in_memory_as_those_joined_from_several_processes(spliced):
    """Sums of float32 depend on the order in memory. Processes that share the images join contiguous arrays."""
    maps, at_cls = effect_maps(spliced, ROWS, LATENTS)
    assert maps.flags.c_contiguous and at_cls.flags.c_contiguous


def test_after_the_last_block_the_patches_do_nothing(spliced):
    last = replace(spliced, layer=3)
    maps, at_cls = effect_maps(last, ROWS, np.arange(64))
    assert not maps.any() and np.abs(at_cls).max() > 1e-3
    arm = last.edit_arm(LatentEdit(latents=torch.arange(64)), "all")
    maps, at_cls, change = edit_maps(last, ROWS, arm, [arm], n_steps=16, batch_size=7)
    assert not maps.any()
    assert at_cls[:, 0] == pytest.approx(change, rel=0.02, abs=1e-3)

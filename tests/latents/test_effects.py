"""The attribution-patching effect equals what a small change of the latent does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.core.clip.readout import gradient
from stages.core.latents.effects import attribution_patching_effect
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.spliced_clip import original


def test_effect_is_the_first_order_loss_of_zeroing(spliced):
    """A small change: scaling a latent by 1 - h changes R by -h times its effect."""
    rows = np.arange(6)
    tokens, truth = spliced.audit.tokens(rows), spliced.truth(rows)
    slope = gradient(spliced.clip, spliced.readout, tokens, truth, 2)
    f = spliced.sae.encode(tokens)
    effect = attribution_patching_effect(spliced.sae.W_dec, f, slope)
    latent, h = int(effect.abs().sum(0).argmax()), 1e-2
    edit = LatentEdit(latents=torch.tensor([latent]), kind="scale", factor=1 - h)
    outcomes = spliced.outcomes(rows, [original, spliced.edit_arm(edit, "all")])
    measured = (outcomes.R[1] - outcomes.R[0]) / -h
    assert measured == pytest.approx(effect[:, latent].numpy(), rel=0.05, abs=2e-3)

"""CLIP with an SAE spliced in: identities that must hold exactly or to rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.spliced_clip import original


def test_no_images_have_empty_outcomes_of_the_right_shape(spliced):
    none = np.array([], dtype=np.int64)
    outcomes = spliced.outcomes(none, [original, spliced.reconstructed])
    assert outcomes.R.shape == outcomes.correct.shape == outcomes.cosine.shape == (2, 0)
    assert spliced.embeddings(none).shape == (0, spliced.embeddings(np.array([0])).shape[1])


def test_a_splice_by_hook_equals_the_tail(spliced):
    rows = np.arange(6)
    arm = spliced.edit_arm(LatentEdit(latents=torch.arange(10)), "all")
    with spliced.arm_in_place(arm, rows):
        by_hook = spliced.clip.embed(spliced.clip.pixels(spliced.data.images(rows)))
    batch = spliced.batch(rows)
    assert torch.allclose(by_hook, spliced.clip.tail(arm(batch), 2), atol=1e-5)
    assert not spliced.clip.visual.transformer.resblocks[1]._forward_hooks


def test_nothing_edited_is_the_original_exactly(spliced):
    nothing = spliced.edit_arm(LatentEdit(latents=torch.tensor([], dtype=torch.long)), "all")
    outcomes = spliced.outcomes(np.arange(16), [original, nothing])
    assert (outcomes.R[0] == outcomes.R[1]).all()
    assert outcomes.cosine == pytest.approx(1.0, abs=1e-6)


def test_an_edit_keeps_the_reconstruction_error(spliced):
    """x + D(f') - D(f), with all latents decoded: an independent way to the same tokens."""
    batch, sae = spliced.batch(np.arange(4)), spliced.sae
    latents = torch.tensor([1, 5, 9])
    f = sae.encode(batch.tokens)
    changed = f.clone()
    changed[..., latents] = 0
    expected = batch.tokens + sae.decode(changed) - sae.decode(f)
    assert torch.allclose(spliced.edit_arm(LatentEdit(latents=latents), "all")(batch), expected, atol=1e-4)


def test_other_pictures_of_the_images_run_through_the_arm_from_their_pixels(spliced, rng):
    rows = np.array([1, 4])
    pictures = rng.integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    edited = spliced.edit_arm(LatentEdit(latents=torch.arange(8)), "all")
    found = spliced.outcomes(rows, [original, edited], lambda some: pictures[np.searchsorted(rows, some)])
    pixels, truth = spliced.clip.pixels(pictures), spliced.truth(rows)
    with torch.no_grad():
        whole = spliced.readout.score(spliced.clip.embed(pixels), truth)
        with spliced.arm_in_place(edited, rows):
            changed = spliced.readout.score(spliced.clip.embed(pixels), truth)
    assert np.allclose(found.R, torch.stack([whole, changed]).numpy(), atol=1e-5)
    assert np.abs(found.R[0] - found.R[1]).min() > 1e-3


def test_twins_differ_in_condition_and_a_clothed_image_is_its_own_clothed_twin(spliced):
    semi_nude = (spliced.data.table["condition"] == "semi_nude").to_numpy()
    assert (semi_nude[spliced.audit.twin] == ~semi_nude).all()
    assert (spliced.audit.twin[spliced.audit.twin] == np.arange(len(semi_nude))).all()
    assert not semi_nude[spliced.audit.clothed_twin].any()
    assert (spliced.audit.clothed_twin[~semi_nude] == np.flatnonzero(~semi_nude)).all()


def test_a_greyed_image_takes_its_latents_from_a_greyed_twin(spliced):
    """Rows 0 and 1 are a pair. The clothed image is its own twin: patching from it changes nothing, greyed or not."""
    semi_nude, clothed = (np.flatnonzero(spliced.data.table["condition"] == c)[:1] for c in ("semi_nude", "clothed"))
    patch = spliced.edit_arm(LatentEdit(latents=torch.arange(20), kind="patch"), "all")

    def half_grey(rows: np.ndarray) -> np.ndarray:
        pictures = spliced.data.images(rows).copy()
        pictures[:, 16:] = 128
        return pictures

    batch, of_twin = spliced.batch(semi_nude, half_grey), spliced.batch(clothed, half_grey)
    assert torch.allclose(batch.clothed_twin, of_twin.tokens, atol=1e-6)
    assert torch.allclose(batch.twin, of_twin.tokens, atol=1e-6)
    assert not torch.allclose(batch.twin, spliced.audit.tokens(clothed), atol=1e-2)
    assert torch.allclose(patch(of_twin), of_twin.tokens, atol=1e-5)
    assert not torch.allclose(patch(batch), batch.tokens, atol=1e-3)

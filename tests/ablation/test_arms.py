"""The arms of the causal test."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from stages.core.ablation import arms
from stages.core.ablation.arms import ARMS, ArmInputs, build_arms
from stages.core.ablation.noise import gaussian_noise, matched_noise
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.pooling import PooledLatents
from stages.core.latents.selection import Selection
from stages.core.run import params
from stages.core.schema import Edit
from tests.imports import ROOT


@pytest.fixture
def inputs(spliced, tmp_path) -> ArmInputs:
    """Ten chosen latents; the effects of all 64 are pooled for the 16 images."""
    n_images, d_sae = 16, spliced.sae.d_sae
    rng = np.random.default_rng(0)
    effect = rng.normal(size=(n_images, d_sae)).astype(np.float32)
    zeros = np.zeros_like(effect)
    PooledLatents(zeros, zeros, zeros, effect, np.zeros(d_sae)).save(tmp_path / "pooled.zarr")
    tests = pd.DataFrame({"latent": np.arange(d_sae), "mean_cls": 0.1, "mean_patch": 0.2, "firing": 0.5})
    tests["eff_mean"] = rng.normal(size=d_sae)
    chosen = Selection(2, "semi_nude", "bias", tests[:10], {}, tests, spliced.sae, tmp_path / "pooled.zarr")
    return ArmInputs(spliced, chosen, params.load(Edit, fpath=ROOT / "params.yaml"), seed=0)


def test_every_arm_of_the_list_is_built_and_is_one_line_of_the_report(inputs):
    """Random pixels carry no planted label, so the arms that need one are left out."""
    arms_built = build_arms(inputs)
    assert list(arms_built) == [
        name for name, entry in ARMS.items() if not entry.planted_only and not entry.at_last_block
    ]
    batch = inputs.spliced.batch(np.array([0, 2, 5]))
    for name, arm in arms_built.items():
        assert torch.equal(arm(batch), batch.tokens) == (name in ("original", "error_kept")), name
    assert build_arms(inputs, at_last_block=True) == {}
    assert [name for name, entry in ARMS.items() if not entry.shown] == ["error_kept"]


def test_ranked_once_edits_the_most_harmful_latents(inputs):
    most_harmful = inputs.chosen.tests["eff_mean"].nlargest(10).index.to_numpy()
    expected = inputs.spliced.selected_edit_arm(inputs.chosen, inputs.edit, most_harmful)
    batch = inputs.spliced.batch(np.arange(4))
    assert torch.allclose(arms.ranked_once(inputs)(batch), expected(batch), atol=1e-6)


def test_noise_is_as_long_as_the_reconstruction_error(inputs):
    batch, sae = inputs.spliced.batch(np.array([0, 2, 5])), inputs.spliced.sae
    x, noisy = batch.tokens, arms.noise(inputs)(batch)
    assert torch.allclose((noisy - x).norm(dim=-1), (x - sae(x)).norm(dim=-1), rtol=1e-4)


def test_the_noise_of_an_image_does_not_depend_on_the_images_beside_it(inputs):
    rows = np.array([5, 0, 2])
    together = gaussian_noise(inputs.spliced.batch(rows), seed=3)
    alone = [gaussian_noise(inputs.spliced.batch(rows[i : i + 1]), seed=3)[0] for i in range(3)]
    assert torch.equal(together, torch.stack(alone))
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together, gaussian_noise(inputs.spliced.batch(rows), seed=4))
    assert abs(float(together.mean())) < 0.05 and abs(float(together.std()) - 1) < 0.05


@pytest.mark.parametrize("label", ["condition", "emotion"])
def test_where_means_are_removed_the_labels_have_one_mean_of_class_tokens_and_one_of_patches(spliced, label):
    images = spliced.data.table[spliced.data.table["split"] == "discovery"]
    rows = images.index.to_numpy().copy()
    before, after = spliced.audit.tokens(rows), arms.means_removed(spliced, images[label])(spliced.batch(rows))
    for pool in (lambda x: x[:, 0], lambda x: x[:, 1:].mean(1)):
        apart = [
            (
                pool(x)[np.flatnonzero(images[label] == a)].mean(0)
                - pool(x)[np.flatnonzero(images[label] == b)].mean(0)
            ).norm()
            for x in (before, after)
            for a, b in [sorted(set(images[label]))]
        ]
        assert apart[0] > 1e-3 and apart[1] < 1e-5
    assert torch.linalg.matrix_rank((after - before)[:, 0], atol=1e-5) == 1  # two labels, one direction


def test_a_random_direction_is_as_long_as_the_edit_and_not_the_edit(spliced):
    batch = spliced.batch(np.array([0, 2, 5]))
    edit = spliced.edit_arm(LatentEdit(latents=torch.arange(20)), "patches")
    change, other = edit(batch) - batch.tokens, matched_noise(edit, seed=0)(batch) - batch.tokens
    assert torch.allclose(other.norm(dim=-1), change.norm(dim=-1), atol=1e-5)
    assert (other[:, 0] == 0).all()  # the class token is out of scope
    assert torch.nn.functional.cosine_similarity(other[:, 1:], change[:, 1:], dim=-1).abs().mean() < 0.4


def test_swapped_latents_are_those_of_the_other_twin_both_ways(inputs):
    """Zeroing the latents and writing the twin's into the same tokens gives the same change, latent by latent."""
    spliced, rows = inputs.spliced, np.array([0, 1])  # a pair
    out = arms.swapped(inputs)(spliced.batch(rows))
    x, twin = spliced.audit.tokens(rows), spliced.audit.tokens(rows[::-1].copy())
    f, target = (spliced.sae.encode(tokens)[..., :10] for tokens in (x, twin))
    assert torch.allclose(out - x, (target - f) @ spliced.sae.W_dec[:10], atol=1e-5)

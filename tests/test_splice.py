"""Residual stream, splice and edits: identities that must hold exactly or to rounding."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from stages import analyse_sae, heatmap
from stages.core import schema, store
from stages.core.ablation import arms
from stages.core.clip import vit
from stages.core.clip.readout import Readout, gradient, skill
from stages.core.data import dataset
from stages.core.intervention import edits
from stages.core.intervention.edits import LatentEdit
from stages.core.intervention.spliced_clip import SplicedClip, original
from stages.core.latents import lists
from stages.core.run import labels

N_WOMEN, EMOTIONS = 4, ("happy", "sad")


@pytest.fixture
def data(tmp_path, rng):
    """4 women x 2 emotions x 2 conditions of random pixels."""
    keys = [(f"w{w}", e, c) for w in range(N_WOMEN) for e in EMOTIONS for c in labels.CONDITIONS]
    table = pd.DataFrame(keys, columns=["identity", "emotion", "condition"])
    table["image"] = [f"i{i}" for i in range(len(table))]
    table["intensity"], table["prompt"] = "", [f"a {e} woman" for e in table["emotion"]]
    table["split"] = np.where(table["identity"].isin(["w0", "w1"]), "discovery", "confirmation")
    table["pair"] = np.arange(len(table)) // 2
    n = len(table)
    image = rng.integers(0, 255, (n, 32, 32, 3), dtype=np.uint8)
    bust, face = np.zeros((2, n, 32, 32), np.uint8)
    bust[:, 16:24, 8:24], face[:, 0:8, 8:24] = 255, 255
    with dataset.create(tmp_path / "dataset", table, 32, {e: f"a {e} woman" for e in EMOTIONS}) as append:
        append(image, bust, face)
    return dataset.load(tmp_path / "dataset")


@pytest.fixture
def spliced(tmp_path, tiny_clip, tiny_sae, data):
    layer = 2
    _, kept = tiny_clip.residuals(tiny_clip.pixels(data.images(slice(None))), [layer])
    with store.create(tmp_path / "l2.zarr", len(data.table), 17, 32, shard_images=5) as new:
        new.append(kept[layer].numpy())
        new.attributes = {"mean": [0.0], "model": "m", "module": "b", "dataset_sha256": data.sha256}
    return SplicedClip(tiny_clip, tiny_sae, layer, data, store.open(tmp_path / "l2.zarr"), batch_size=3)


def test_the_dataset_reads_back(data):
    pairs = data.pairs()
    assert len(pairs) == 8
    assert (data.table["condition"].to_numpy()[pairs["semi_nude"]] == "semi_nude").all()
    assert (data.table["identity"].to_numpy()[pairs["clothed"]] == pairs["identity"]).all()
    assert data.emotion_index(np.array([0, 2])).tolist() == [0, 1]
    assert set(data.pairs("discovery")["identity"]) == {"w0", "w1"}


def test_splits_are_by_woman():
    splits = dataset.assign_splits(["a", "a", "b", "c", "d"], 0.5, seed=0)
    assert sorted(splits.values()) == ["confirmation", "confirmation", "discovery", "discovery"]
    with pytest.raises(ValueError, match="at least 2"):
        dataset.assign_splits(["a", "a"], 0.5, seed=0)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_the_tail_continues_the_forward_pass(tiny_clip, data, layer):
    pixels = tiny_clip.pixels(data.images(slice(0, 4)))
    embeddings, kept = tiny_clip.residuals(pixels, [layer])
    assert torch.allclose(tiny_clip.tail(kept[layer], layer), embeddings, atol=1e-6)


def test_layers_count_from_one(tiny_clip, data):
    pixels = tiny_clip.pixels(data.images(slice(0, 2)))
    _, kept = tiny_clip.residuals(pixels, [1, 3])
    x = tiny_clip.visual._embeds(pixels)
    x = tiny_clip.visual.transformer.resblocks[0](x)
    assert torch.allclose(kept[1], x, atol=1e-6)
    for layer in (0, 4):
        with pytest.raises(vit.ModelError, match="blocks 1 to 3"):
            tiny_clip.check_layer(layer)


def test_another_resolution_is_refused(tiny_clip):
    with pytest.raises(vit.ModelError, match="set ingest"):
        tiny_clip.pixels(np.zeros((1, 48, 48, 3), np.uint8))


def test_a_splice_by_hook_equals_the_tail(spliced):
    rows = np.arange(6)
    arm = spliced.arm(LatentEdit(latents=torch.arange(10)), "all")
    with spliced.arm_in_place(arm, rows):
        by_hook = spliced.clip.embed(spliced.clip.pixels(spliced.data.images(rows)))
    batch = spliced.batch(rows)
    assert torch.allclose(by_hook, spliced.clip.tail(arm(batch), 2), atol=1e-5)
    assert not spliced.clip.visual.transformer.resblocks[1]._forward_hooks


def test_nothing_edited_is_the_original_exactly(spliced):
    nothing = spliced.arm(LatentEdit(latents=torch.tensor([], dtype=torch.long)), "all")
    outcomes = spliced.outcomes(np.arange(16), [original, nothing])
    assert (outcomes.R[0] == outcomes.R[1]).all()
    assert outcomes.cosine == pytest.approx(1.0, abs=1e-6)


def test_nothing_edited_has_the_map_and_the_embedding_of_the_original_exactly(spliced):
    rows = np.arange(6)
    nothing = spliced.arm(LatentEdit(latents=torch.tensor([], dtype=torch.long)), "all")
    some = spliced.arm(LatentEdit(latents=torch.arange(8)), "all")
    (before, cosines), (after, same_cosines) = (heatmap.maps(spliced, rows, arm) for arm in (original, nothing))
    assert np.array_equal(before, after) and np.array_equal(cosines, same_cosines)
    assert np.array_equal(spliced.embeddings(rows), spliced.embeddings(rows, nothing))
    assert not np.array_equal(before, heatmap.maps(spliced, rows, some)[0])


def test_an_edit_keeps_the_reconstruction_error(spliced):
    """x + D(f') - D(f), with all latents decoded: an independent way to the same tokens."""
    batch, sae = spliced.batch(np.arange(4)), spliced.sae
    latents = torch.tensor([1, 5, 9])
    f = sae.encode(batch.tokens)
    changed = f.clone()
    changed[..., latents] = 0
    expected = batch.tokens + sae.decode(changed) - sae.decode(f)
    assert torch.allclose(spliced.arm(LatentEdit(latents=latents), "all")(batch), expected, atol=1e-4)


def test_kinds_of_edit(tiny_sae):
    x, twin = torch.randn(2, 17, 32), torch.randn(2, 17, 32)
    latents = torch.tensor([0, 7])
    f = tiny_sae.encode(x, latents)
    rows = tiny_sae.W_dec[latents]

    def change(edit):
        return edits.edited(x, tiny_sae, edit, twin=twin) - x

    means = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    target = torch.cat([means[0].expand(2, 1, 2), means[1].expand(2, 16, 2)], 1)
    assert torch.allclose(change(LatentEdit(latents=latents, kind="scale", factor=4.0)), 3 * f @ rows, atol=1e-5)
    assert torch.allclose(change(LatentEdit(latents=latents, kind="mean", means=means)), (target - f) @ rows, atol=1e-5)
    patched = (tiny_sae.encode(twin, latents) - f) @ rows
    assert torch.allclose(change(LatentEdit(latents=latents, kind="patch")), patched, atol=1e-5)
    with pytest.raises(ValueError, match="twin"):
        edits.edited(x, tiny_sae, LatentEdit(latents=latents, kind="patch"))


def test_scopes_partition_the_tokens():
    bust = np.zeros((2, 4, 4))
    bust[:, 2:, 1:3] = 1
    chosen = {kind: edits.scope(kind, 2, 17, bust) for kind in ("all", "cls", "patches", "bust", "not_bust")}
    assert chosen["all"].all()
    assert chosen["cls"].sum() == 2 and chosen["cls"][:, 0].all()
    assert torch.equal(chosen["bust"] | chosen["not_bust"], chosen["patches"])
    assert chosen["bust"].sum() == 8


def test_after_the_last_block_only_the_class_token_counts(tiny_clip, tiny_sae):
    """Nothing mixes tokens after the last block, so patch edits there cannot reach the embedding."""
    x = torch.randn(3, 17, 32)
    edit = LatentEdit(latents=torch.arange(64))
    for kind, same in (("patches", True), ("cls", False)):
        where = edits.scope(kind, 3, 17)
        moved = tiny_clip.tail(edits.edited(x, tiny_sae, edit, where=where), 3)
        assert torch.equal(moved, tiny_clip.tail(x, 3)) is same


def test_noise_is_as_long_as_the_reconstruction_error(tiny_sae):
    x = torch.randn(3, 17, 32)
    noisy = edits.matched_noise(x, tiny_sae, [0])
    assert torch.allclose((noisy - x).norm(dim=-1), (x - tiny_sae(x)).norm(dim=-1), rtol=1e-4)


def test_effect_is_the_first_order_loss_of_zeroing(spliced):
    """A small change: scaling a latent by 1 - h changes R by -h times its effect."""
    rows = np.arange(6)
    tokens, truth = spliced.tokens(rows), spliced.truth(rows)
    slope = gradient(spliced.clip, spliced.readout, tokens, truth, 2)
    f = spliced.sae.encode(tokens)
    effect = (f * (slope @ spliced.sae.W_dec.T)).sum(1)
    latent, h = int(effect.abs().sum(0).argmax()), 1e-2
    edit = LatentEdit(latents=torch.tensor([latent]), kind="scale", factor=1 - h)
    outcomes = spliced.outcomes(rows, [original, spliced.arm(edit, "all")])
    measured = (outcomes.R[1] - outcomes.R[0]) / -h
    assert measured == pytest.approx(effect[:, latent].numpy(), rel=0.05, abs=2e-3)


def test_other_pictures_of_the_images_run_through_the_arm_from_their_pixels(spliced, rng):
    rows = np.array([1, 4])
    pictures = rng.integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    edited = spliced.arm(LatentEdit(latents=torch.arange(8)), "all")
    found = spliced.outcomes(rows, [original, edited], lambda some: pictures[np.searchsorted(rows, some)])
    pixels, truth = spliced.clip.pixels(pictures), spliced.truth(rows)
    with torch.no_grad():
        whole = spliced.readout.score(spliced.clip.embed(pixels), truth)
        with spliced.arm_in_place(edited, rows):
            changed = spliced.readout.score(spliced.clip.embed(pixels), truth)
    assert np.allclose(found.R, torch.stack([whole, changed]).numpy(), atol=1e-5)
    assert np.abs(found.R[0] - found.R[1]).min() > 1e-3


def test_skill_runs_from_chance_to_certainty():
    assert [skill(accuracy, 4) for accuracy in (0.25, 0.625, 1.0)] == [0, 0.5, 1]


def test_the_readout_by_hand():
    readout = Readout(torch.eye(2), scale=2.0)
    embedded = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    truth = torch.tensor([0, 0])
    expected = [-np.log(1 + np.exp(-2)), -2 - np.log(1 + np.exp(-2))]
    assert readout.score(embedded, truth).tolist() == pytest.approx(expected, rel=1e-5)
    assert readout.correct(embedded, truth).tolist() == [1.0, 0.0]


def test_control_sets_are_alike_and_never_the_chosen_or_the_silent(rng):
    profile = rng.normal(size=(300, 2))
    profile[250:] = np.nan
    chosen = np.argsort(-profile[:250].sum(1))[:4]  # extreme ones, which a careless draw would not match
    sets = edits.matched_sets(chosen, profile, n_sets=40, seed=0)
    assert sets.shape == (40, 4)
    assert not np.isin(sets, chosen).any() and sets.max() < 250
    assert all(len(set(row)) == 4 for row in sets.tolist())
    assert len({tuple(sorted(row)) for row in sets.tolist()}) > 20
    assert profile[sets].sum(-1).mean() > 1.5 > 0.5 > profile[:250].sum(1).mean()
    with pytest.raises(edits.ControlsError, match="2 other latents ever fire, too few"):
        edits.matched_sets(np.arange(248), profile, 1, seed=0)


def test_the_control_p():
    assert edits.control_p(1.0, np.array([0.0, 0.5, 1.0, 2.0])) == 3 / 5
    assert edits.control_p(9.0, np.zeros(199)) == 1 / 200


@pytest.mark.parametrize("label", ["condition", "emotion"])
def test_where_means_are_removed_the_labels_have_one_mean_of_class_tokens_and_one_of_patches(spliced, label):
    images = spliced.data.table[spliced.data.table["split"] == "discovery"]
    rows = images.index.to_numpy().copy()
    before, after = spliced.tokens(rows), arms.means_removed(spliced, images[label])(spliced.batch(rows))
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
    edit = spliced.arm(LatentEdit(latents=torch.arange(20)), "patches")
    change, other = edit(batch) - batch.tokens, arms.random_direction(edit, seed=0)(batch) - batch.tokens
    assert torch.allclose(other.norm(dim=-1), change.norm(dim=-1), atol=1e-5)
    assert (other[:, 0] == 0).all()  # the class token is out of scope
    assert torch.nn.functional.cosine_similarity(other[:, 1:], change[:, 1:], dim=-1).abs().mean() < 0.4


def test_twins_differ_in_condition_and_a_clothed_image_is_its_own_clothed_twin(spliced):
    semi_nude = (spliced.data.table["condition"] == "semi_nude").to_numpy()
    assert (semi_nude[spliced.twin] == ~semi_nude).all()
    assert (spliced.twin[spliced.twin] == np.arange(len(semi_nude))).all()
    assert not semi_nude[spliced.clothed_twin].any()
    assert (spliced.clothed_twin[~semi_nude] == np.flatnonzero(~semi_nude)).all()


def test_a_random_model_reads_no_face(spliced):
    assert analyse_sae.reads_faces(spliced, 0.0)
    assert not analyse_sae.reads_faces(spliced, 0.99)


def test_no_bias_latents_are_sought_in_a_model_that_reads_no_face(spliced, monkeypatch):
    sought = pd.DataFrame([[7, 1, -1.0, -2.0, -0.5, 0.01]], columns=lists.COLUMNS)
    monkeypatch.setattr(latents, "bias", lambda *given, **options: sought)
    edit = schema.Edit.model_construct(n_per_step=4, n_latents=4)
    for least, expected in ((0.0, sought), (0.99, sought[:0])):
        config = SimpleNamespace(inference=schema.Inference.model_construct(min_readout=least), edit=edit)
        assert len(analyse_sae.bias_latents(spliced, None, None, config, None)) == len(expected)


def test_swapped_latents_are_those_of_the_other_twin_both_ways(spliced):
    """Zeroing the latents and writing the twin's into the same tokens gives the same change, latent by latent."""
    latents, rows = np.arange(10), np.array([0, 1])  # a pair
    out = arms.swapped(spliced, latents)(spliced.batch(rows))
    x, twin = spliced.tokens(rows), spliced.tokens(rows[::-1].copy())
    f, target = (spliced.sae.encode(tokens)[..., :10] for tokens in (x, twin))
    assert torch.allclose(out - x, (target - f) @ spliced.sae.W_dec[:10], atol=1e-5)

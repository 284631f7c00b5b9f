"""Totals of a set of latents: against the edit itself, and after an exchange."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from stages.core.ablation import set_totals
from stages.core.latents.pooling import Pooling
from stages.core.latents.selection import Selection
from stages.core.paired import Pairs
from stages.core.schema import Edit


def edit(kind: str = "zero", scope: str = "all") -> Edit:
    return Edit.model_construct(kind=kind, factor=0.0, scope=scope)


@pytest.fixture
def chosen(spliced, tmp_path) -> Selection:
    """Ten chosen latents of 64. The first 20 latents have an effect on R, the others none but the chosen ones."""
    rows = spliced.data.audit_rows()
    pooling = Pooling(len(rows), 64, np.isin(rows, spliced.data.rows("discovery")))
    f = spliced.sae.encode(spliced.audit.tokens(rows))
    effect = torch.where(torch.arange(64) < 20, f.mean(1) - 0.1, 0.0)
    pooling.add(f, effect)
    pooling.result().save(tmp_path / "pooled.zarr")
    means = {"mean_cls": f[:8, 0].mean(0).numpy(), "mean_patch": f[:8, 1:].mean((0, 1)).numpy()}
    tests = pd.DataFrame({"latent": np.arange(64), "firing": 0.1, "eff_mean": 0.0, **means})
    return Selection(2, "semi_nude", "bias", tests[15:25], {}, tests, spliced.sae, tmp_path / "pooled.zarr")


def test_the_pool_holds_latents_that_act_and_the_edited_ones(spliced, chosen):
    assert set_totals.measure(spliced, chosen, edit()).latents.tolist() == list(range(25))


@pytest.mark.parametrize("kind", ["zero", "mean", "patch"])
def test_a_length_is_that_of_the_change_by_the_edit(spliced, chosen, kind):
    """The edit of some latents, made inside CLIP: how far it moves the class token, and the mean of the patches."""
    totals = set_totals.measure(spliced, chosen, edit(kind))
    some = np.array([0, 3, 4, 17, 19, 22])
    batch = spliced.batch(Pairs.from_images(spliced.data.table, "discovery").rows)
    change = spliced.selected_edit_arm(chosen, edit(kind), some)(batch) - batch.tokens
    moved = dict(length_cls=change[:, 0], length_patches=change[:, 1:].mean(1))
    found = dict(zip(totals.names, totals.of_sets(some[None])[0], strict=True))
    for name, vectors in moved.items():
        assert found[name] == pytest.approx(float(vectors.square().sum(1).mean().sqrt()), rel=1e-4)


def test_activity_and_contribution_are_sums_over_the_set(spliced, chosen):
    totals, some = set_totals.measure(spliced, chosen, edit()), np.array([0, 3, 17])
    pairs = Pairs.from_images(spliced.data.table, "discovery")
    active = spliced.sae.encode(spliced.audit.tokens(pairs.rows))[..., some] > 0
    found = dict(zip(totals.names, totals.of_sets(some[None])[0], strict=True))
    assert found["activity"] == pytest.approx(float(active.sum(-1).float().mean()), rel=1e-5)
    effect = chosen.pooled.effect[pairs.positions(spliced.data.audit_rows())]
    assert found["contribution"] == pytest.approx(np.abs(effect[:, some]).mean(0).sum(), rel=1e-5)


@pytest.mark.parametrize(
    ("scope", "lengths"), [("cls", ["length_cls"]), ("bust", ["length_patches"]), ("not_bust", ["length_patches"])]
)
def test_only_tokens_that_are_edited_have_a_length(spliced, chosen, scope, lengths):
    assert set_totals.measure(spliced, chosen, edit(scope=scope)).names == ["activity", "contribution", *lengths]


def test_after_the_last_block_only_the_class_token_counts(spliced, chosen):
    object.__setattr__(spliced, "layer", spliced.clip.n_layers)
    totals = set_totals.measure(spliced, chosen, edit())
    assert totals.names == ["activity", "contribution", "length_cls"]
    active = chosen.pooled.cls[:8, :25] > 0
    assert totals.of_sets(np.array([[1, 2, 20]]))[0, 0] == pytest.approx(active[:, [1, 2, 20]].mean(0).sum())


def test_an_exchange_changes_totals_as_the_new_set_says(spliced, chosen, rng):
    totals = set_totals.measure(spliced, chosen, edit())
    sets = np.stack([rng.permutation(25)[:6] for _ in range(30)])
    new = np.array([np.setdiff1d(np.arange(25), some)[3] for some in sets])
    after = sets.copy()
    after[:, 2] = new
    changed = totals.with_squares(sets) + totals.exchanged(sets, sets[:, 2], new)
    np.testing.assert_allclose(changed, totals.with_squares(after), rtol=1e-4, atol=1e-6)

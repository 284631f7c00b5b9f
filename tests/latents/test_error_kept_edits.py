"""Edits of latents: kinds, scopes, and where an edit can do nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.core.latents import error_kept_edits
from stages.core.latents.error_kept_edits import LatentEdit


def test_kinds_of_edit(tiny_sae):
    x, twin = torch.randn(2, 17, 32), torch.randn(2, 17, 32)
    latents = torch.tensor([0, 7])
    f = tiny_sae.encode(x, latents)
    rows = tiny_sae.W_dec[latents]

    def change(edit):
        return error_kept_edits.edited(x, tiny_sae, edit, twin=twin) - x

    means = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    target = torch.cat([means[0].expand(2, 1, 2), means[1].expand(2, 16, 2)], 1)
    assert torch.allclose(change(LatentEdit(latents=latents, kind="scale", factor=4.0)), 3 * f @ rows, atol=1e-5)
    assert torch.allclose(change(LatentEdit(latents=latents, kind="mean", means=means)), (target - f) @ rows, atol=1e-5)
    patched = (tiny_sae.encode(twin, latents) - f) @ rows
    assert torch.allclose(change(LatentEdit(latents=latents, kind="patch")), patched, atol=1e-5)
    with pytest.raises(ValueError, match="twin"):
        error_kept_edits.edited(x, tiny_sae, LatentEdit(latents=latents, kind="patch"))


def test_all_tensors_of_an_edit_are_moved():
    edit = LatentEdit(latents=torch.arange(2), kind="scale", factor=torch.ones(2), means=torch.ones(2, 2))
    moved = edit.to(torch.device("meta"))
    assert {moved.latents.device.type, moved.factor.device.type, moved.means.device.type} == {"meta"}
    assert LatentEdit(latents=torch.arange(2), kind="scale", factor=2.0).to(torch.device("meta")).factor == 2


def test_scopes_partition_the_tokens():
    bust = np.zeros((2, 4, 4))
    bust[:, 2:, 1:3] = 1
    chosen = {
        kind: error_kept_edits.tokens_in_scope(kind, 2, 17, bust)
        for kind in ("all", "cls", "patches", "bust", "not_bust")
    }
    assert chosen["all"].all()
    assert chosen["cls"].sum() == 2 and chosen["cls"][:, 0].all()
    assert torch.equal(chosen["bust"] | chosen["not_bust"], chosen["patches"])
    assert chosen["bust"].sum() == 8


def test_after_the_last_block_only_the_class_token_counts(tiny_clip, tiny_sae):
    """Nothing mixes tokens after the last block, so patch edits there cannot reach the embedding."""
    x = torch.randn(3, 17, 32)
    edit = LatentEdit(latents=torch.arange(64))
    for kind, same in (("patches", True), ("cls", False)):
        where = error_kept_edits.tokens_in_scope(kind, 3, 17)
        moved = tiny_clip.tail(error_kept_edits.edited(x, tiny_sae, edit, where=where), 3)
        assert torch.equal(moved, tiny_clip.tail(x, 3)) is same

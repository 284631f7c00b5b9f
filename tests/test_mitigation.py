"""A model that carries its edit gives what the edit gave."""

from __future__ import annotations

import json

import pytest
import torch

from stages.core import mitigation
from stages.core.latents import error_kept_edits
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.sae import JumpReLUSAE

LATENTS = torch.tensor([3, 40, 7, 19])
EDITS = {
    "zero": LatentEdit(latents=LATENTS),
    "scale": LatentEdit(latents=LATENTS, kind="scale", factor=2.0),
    "mean": LatentEdit(latents=LATENTS, kind="mean", means=torch.rand(2, 4)),
    "nothing": LatentEdit(latents=torch.tensor([], dtype=torch.long), means=torch.zeros(2, 0)),
}


@pytest.mark.parametrize("scope", ["all", "cls", "patches"])
@pytest.mark.parametrize("name", EDITS)
def test_round_trip(tiny_clip, tiny_sae, tmp_path, name, scope):
    pixels, layer = torch.randn(3, 3, 32, 32), 2
    _, kept = tiny_clip.residuals(pixels, [layer])
    x = kept[layer]
    where = error_kept_edits.tokens_in_scope(scope, len(x), x.shape[1])
    expected = tiny_clip.tail(error_kept_edits.edited(x, tiny_sae, EDITS[name], where=where), layer)
    before = tiny_clip.embed(pixels)
    mitigation.save(tmp_path, tiny_sae, EDITS[name], scope, layer)
    attached = mitigation.attach(tiny_clip.model, tmp_path)
    after = tiny_clip.embed(pixels)
    assert torch.allclose(after, expected, atol=1e-5)
    assert name == "nothing" or not torch.allclose(after, before, atol=1e-4)
    attached.close()
    assert torch.equal(tiny_clip.embed(pixels), before)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float64])
def test_an_edit_follows_its_model_to_another_precision(tiny_clip, tiny_sae, tmp_path, precision):
    pixels = torch.randn(3, 3, 32, 32)
    mitigation.save(tmp_path, tiny_sae, EDITS["mean"], "all", 2)
    attached = mitigation.attach(tiny_clip.model, tmp_path)
    in_float32 = tiny_clip.model.encode_image(pixels)
    try:
        found = tiny_clip.model.to(precision).encode_image(pixels.to(precision))
    finally:
        tiny_clip.model.float()
        attached.close()
    assert found.dtype == precision
    by_the_edit = (tiny_clip.model.encode_image(pixels) - in_float32).abs().max()
    distance = (found.float() - in_float32).abs().max()
    assert distance < (1e-5 if precision == torch.float64 else by_the_edit / 4)


def test_only_the_edited_latents_are_stored(tiny_sae, tmp_path):
    mitigation.save(tmp_path, tiny_sae, EDITS["zero"], "all", 2)
    few = JumpReLUSAE.load(tmp_path / "latents")
    assert few.d_sae == 4 and few.metadata["latents"] == LATENTS.tolist()
    assert torch.equal(few.W_dec, tiny_sae.W_dec[LATENTS])


def test_an_edit_that_needs_the_twin_or_the_mask_is_refused_with_the_reason(tiny_clip, tiny_sae, tmp_path):
    for edit, scope in ((LatentEdit(latents=LATENTS, kind="patch"), "all"), (EDITS["zero"], "bust")):
        with pytest.raises(mitigation.MitigationError, match="needs the twin or the bust mask"):
            mitigation.save(tmp_path, tiny_sae, edit, scope, 2)
    with pytest.raises(mitigation.MitigationError, match="dvc repro export_clip"):
        mitigation.attach(tiny_clip.model, tmp_path)
    (tmp_path / mitigation.REFUSAL_FNAME).write_text("edit.kind patch")
    with pytest.raises(mitigation.MitigationError, match=r"edit.kind patch"):
        mitigation.attach(tiny_clip.model, tmp_path)


@pytest.mark.parametrize(
    "change", [{"scope": "al"}, {"kind": "none"}, {"kind": "mean", "means": None}, {"layer": 9}, {"means": [1.0]}]
)
def test_a_damaged_edit_is_refused_before_it_acts(tiny_clip, tiny_sae, tmp_path, change):
    mitigation.save(tmp_path, tiny_sae, EDITS["mean"], "all", 2)
    fpath = tmp_path / mitigation.EDIT_FNAME
    fpath.write_text(json.dumps(json.loads(fpath.read_text()) | change))
    with pytest.raises(mitigation.MitigationError, match=r"edit\.json"):
        mitigation.attach(tiny_clip.model, tmp_path)

"""The JumpReLU SAE: formulas by hand, files as SAELens lays them out."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.core.sae import JumpReLUSAE, SAEError


def by_hand() -> JumpReLUSAE:
    sae = JumpReLUSAE(2, 3)
    sae.W_enc.data = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    sae.b_enc.data = torch.tensor([0.0, 0.5, 0.0])
    sae.W_dec.data = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    sae.b_dec.data = torch.tensor([1.0, 1.0])
    sae.threshold.data = torch.tensor([0.5, 0.5, 4.0])
    return sae.requires_grad_(False)


def test_encode_and_decode_by_hand():
    sae = by_hand()
    x = torch.tensor([[2.0, 3.0]])  # x - b_dec = (1, 2); z = (1, 2.5, 3)
    assert torch.equal(sae.pre_activations(x), torch.tensor([[1.0, 2.5, 3.0]]))
    assert torch.equal(sae.encode(x), torch.tensor([[1.0, 2.5, 0.0]]))  # 3 < 4: off
    assert torch.equal(sae(x), torch.tensor([[2.0, 6.0]]))  # 1 (1, 0) + 2.5 (0, 2) + (1, 1)


def test_a_latent_at_its_threshold_is_off():
    sae = by_hand()
    assert sae.encode(torch.tensor([[1.5, 1.0]]))[0, 0] == 0  # z = 0.5 = threshold


def test_chosen_latents_are_the_columns_of_all(tiny_sae):
    x = torch.randn(5, 32)
    chosen = torch.tensor([3, 60, 7])
    assert torch.allclose(tiny_sae.encode(x, chosen), tiny_sae.encode(x)[:, chosen], atol=1e-6)


def test_saved_and_loaded_is_the_same(tiny_sae, tmp_path):
    tiny_sae.metadata["layer"] = 3
    tiny_sae.save(tmp_path)
    loaded = JumpReLUSAE.load(tmp_path)
    assert loaded.metadata == {"layer": 3}
    for name, value in tiny_sae.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert (config["architecture"], config["d_in"], config["d_sae"]) == ("jumprelu", 32, 64)


def test_a_relu_sae_and_an_unsubtracted_bias_are_read(tiny_sae, tmp_path):
    tiny_sae.save(tmp_path)
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    del tensors["threshold"]
    save_file(tensors, tmp_path / "sae_weights.safetensors")
    config = json.loads((tmp_path / "cfg.json").read_text())
    config |= {"architecture": "standard", "apply_b_dec_to_input": False}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    loaded = JumpReLUSAE.load(tmp_path)
    x = torch.randn(4, 32)
    expected = torch.relu(x @ tensors["W_enc"] + tensors["b_enc"])
    assert torch.allclose(loaded.encode(x), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda d: (d / "cfg.json").write_text("{"), "not JSON"),
        (lambda d: (d / "cfg.json").write_text('{"architecture": "topk", "d_in": 1, "d_sae": 1}'), "'topk'"),
        (lambda d: (d / "sae_weights.safetensors").write_bytes(b"\x80\x04pickle"), "not a safetensors file"),
        (lambda d: (d / "sae_weights.safetensors").unlink(), "missing"),
    ],
)
def test_damaged_files_are_named(tiny_sae, tmp_path, damage, says):
    tiny_sae.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(SAEError, match=says):
        JumpReLUSAE.load(tmp_path)


@pytest.mark.parametrize("value", [torch.zeros(2, 2), torch.full((64,), float("nan"))])
def test_wrong_shapes_and_values_are_named(tiny_sae, tmp_path, value):
    tiny_sae.save(tmp_path)
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    save_file({**tensors, "b_enc": value}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(SAEError, match="b_enc"):
        JumpReLUSAE.load(tmp_path)

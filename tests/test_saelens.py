"""SAEs exchanged with SAELens, through the package itself: ours open there, theirs open here, with equal results."""

from __future__ import annotations

import pytest
import torch
from sae_lens import SAE, JumpReLUSAEConfig, StandardSAEConfig
from sae_lens import JumpReLUSAE as SaeLensJumpReLU
from sae_lens import StandardSAE as SaeLensStandard

from stages.core.sae import JumpReLUSAE, SAEError

pytestmark = pytest.mark.slow

D_IN, D_SAE = 32, 64


def randomise(sae: torch.nn.Module) -> torch.nn.Module:
    for parameter in sae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(parameter)))
    if hasattr(sae, "threshold"):
        sae.threshold.data.abs_()
    return sae


def assert_equal(ours: JumpReLUSAE, theirs: torch.nn.Module) -> None:
    x = 2 * torch.randn(100, D_IN)
    f = ours.encode(x)
    assert 0.1 < (f > 0).float().mean() < 0.9
    assert torch.allclose(theirs.encode(x), f, atol=1e-4)
    assert torch.allclose(theirs.decode(f), ours.decode(f), atol=1e-4)
    assert torch.allclose(theirs(x), ours(x), atol=1e-3)


def test_ours_opens_in_saelens(tiny_sae, tmp_path):
    randomise(tiny_sae).save(tmp_path)
    theirs = SAE.load_from_disk(tmp_path)
    assert isinstance(theirs, SaeLensJumpReLU)
    assert_equal(tiny_sae, theirs)


@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
@pytest.mark.parametrize(
    ("architecture", "config"), [(SaeLensJumpReLU, JumpReLUSAEConfig), (SaeLensStandard, StandardSAEConfig)]
)
def test_theirs_open_here(tmp_path, architecture, config, apply_b_dec_to_input):
    theirs = randomise(architecture(config(D_IN, D_SAE, apply_b_dec_to_input=apply_b_dec_to_input)))
    theirs.save_model(tmp_path)
    assert_equal(JumpReLUSAE.load(tmp_path), theirs)


def test_theirs_survives_both_ways(tmp_path):
    theirs = randomise(SaeLensJumpReLU(JumpReLUSAEConfig(D_IN, D_SAE)))
    theirs.save_model(tmp_path / "theirs")
    JumpReLUSAE.load(tmp_path / "theirs").save(tmp_path / "ours")
    back = SAE.load_from_disk(tmp_path / "ours")
    for name, weight in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[name], weight), name


def test_normalisation_outside_the_weights_is_refused(tmp_path):
    config = JumpReLUSAEConfig(D_IN, D_SAE, normalize_activations="layer_norm")
    SaeLensJumpReLU(config).save_model(tmp_path)
    with pytest.raises(SAEError, match="normalize_activations"):
        JumpReLUSAE.load(tmp_path)

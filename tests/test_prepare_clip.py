"""Loading open_clip models: real architectures, local checkpoints, and refusals with a remedy."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from stages import prepare_clip
from stages.core.clip import vit
from stages.core.schema import Clip, Compute

pytestmark = pytest.mark.slow

COMPUTE = Compute(device="cpu", precision="float32", threads=1)
ARCHITECTURE = "ViT-S-32-alt"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A randomly initialised model of a real architecture, saved as a user would have it."""
    torch.manual_seed(5)
    model = open_clip.create_model(ARCHITECTURE).eval()
    fpath = tmp_path_factory.mktemp("checkpoint") / "weights.safetensors"
    save_file(model.state_dict(), fpath)
    return model, fpath


def test_a_local_checkpoint_comes_through_unchanged(checkpoint, tmp_path):
    model, fpath = checkpoint
    loaded, model_cfg = prepare_clip.from_open_clip(
        Clip(source="open_clip", architecture=ARCHITECTURE, pretrained=str(fpath))
    )
    prepare_clip.save(tmp_path / "clip", loaded, model_cfg, loaded.visual.preprocess_cfg)
    clip = vit.load(tmp_path / "clip", COMPUTE)
    pixels = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model.visual(pixels), dim=-1)
        assert torch.allclose(clip.embed(pixels), expected, atol=1e-6)
        text = model.encode_text(open_clip.get_tokenizer(ARCHITECTURE)(["a woman"]), normalize=True)
        assert torch.allclose(clip.text(["a woman"]), text, atol=1e-6)
    assert not list((tmp_path / "clip").glob("*.bin"))


def test_quick_gelu_and_preprocessing_are_kept(tmp_path, checkpoint):
    model, _ = checkpoint
    model_cfg = {**open_clip.get_model_config(ARCHITECTURE), "quick_gelu": True}
    prepare_clip.save(tmp_path, model, model_cfg, {"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]})
    clip = vit.load(tmp_path, COMPUTE)
    assert type(clip.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert clip._mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert json.loads((tmp_path / "open_clip_config.json").read_text())["model_cfg"]["quick_gelu"]


@pytest.mark.parametrize(
    ("architecture", "pretrained", "says"),
    [
        ("ViT-X-1", "openai", "open_clip knows no 'ViT-X-1'"),
        ("ViT-B-32", "openia", "neither a file nor a tag of ViT-B-32"),
        ("ViT-L-14", "openai", "use ViT-L-14-quickgelu"),
    ],
)
def test_wrong_names_are_refused_with_the_remedy(architecture, pretrained, says):
    with pytest.raises(vit.ModelError, match=says):
        prepare_clip.from_open_clip(Clip(source="open_clip", architecture=architecture, pretrained=pretrained))


def test_pickle_and_foreign_weights_are_refused(tmp_path, checkpoint):
    pickled = tmp_path / "weights.pt"
    torch.save({}, pickled)
    with pytest.raises(vit.ModelError, match="pickle is never read"):
        prepare_clip.from_open_clip(Clip(source="open_clip", architecture=ARCHITECTURE, pretrained=str(pickled)))
    with pytest.raises(vit.ModelError, match="cannot be loaded into ViT-B-32"):
        prepare_clip.from_open_clip(Clip(source="open_clip", architecture="ViT-B-32", pretrained=str(checkpoint[1])))


def test_towers_that_are_no_plain_vit_are_refused():
    model = open_clip.create_model("RN50")
    with pytest.raises(vit.ModelError, match=r"no transformer\.resblocks"):
        vit.check_supported(model.visual)

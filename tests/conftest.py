"""Shared fixtures. Shapes in signatures are checked by beartype in every test."""

from __future__ import annotations

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

import tests.offline  # before anything else could ask for a network
import tests.typecheck  # noqa: F401 (the hook finds it by name)

with install_import_hook("stages.core", "tests.typecheck.checked"):
    pass


import numpy as np
import torch

from tests.studies import PHOTOGRAPHS, TOY, clone, cut_photographs, repro

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what needs the two studies that `studies` makes once for all."""
    if "studies" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.studies)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    torch.set_num_threads(2)


@pytest.fixture(scope="session", autouse=True)
def _locks(tmp_path_factory):
    """Locks of what tests write are not left in this checkout."""
    from stages.core.run import outs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outs, "LOCKS_DPATH", tmp_path_factory.mktemp("locks"))
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def tiny_clip():
    """A randomly initialised open_clip model of 3 blocks, 16 patches, width 32."""
    import open_clip
    from open_clip.model import CLIP

    from stages.core.clip.vit import FrozenClip

    model = CLIP(**TINY)
    torch.nn.init.normal_(model.visual.positional_embedding, std=0.5)
    return FrozenClip(model, open_clip.SimpleTokenizer(context_length=16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def tiny_sae():
    """A random SAE of width 32 with 64 latents, some of them active on random tokens."""
    from stages.core.sae import JumpReLUSAE

    sae = JumpReLUSAE(32, 64)
    generator = torch.Generator().manual_seed(1)
    for parameter in sae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    sae.threshold.data = sae.threshold.data.abs() + 0.1
    return sae.requires_grad_(False)


@pytest.fixture(scope="session")
def studies(tmp_path_factory) -> dict[str, Path]:
    """The planted world and a folder of photographs, both studied to the end. Tests that spoil them take a copy."""
    folders = {
        "synthetic": clone(tmp_path_factory.mktemp("synthetic"), TOY),
        "folder": clone(tmp_path_factory.mktemp("folder"), PHOTOGRAPHS),
    }
    cut_photographs(folders["folder"] / "data" / "raw")
    repro(folders)
    return folders

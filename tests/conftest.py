"""Shared fixtures. Shapes in signatures are checked by beartype in every test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import tests.offline  # before anything could ask for a network
import tests.one_thread
import tests.typecheck  # before any module of stages.core
from stages.core import store
from stages.core.data import dataset
from stages.core.latents.spliced_clip import SplicedClip
from stages.core.run import labels
from tests.studies import PHOTOGRAPHS, TOY, clone, cut_photographs, repro

N_WOMEN, EMOTIONS = 4, ("happy", "sad")
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
    torch.set_num_threads(tests.one_thread.N_THREADS)


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
    with dataset.create(tmp_path / "dataset", table, 32, {e: [f"a {e} woman"] for e in EMOTIONS}) as append:
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


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window, for all tests of a module."""
    from tests import browsers

    with browsers.started() as driver:
        yield driver


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

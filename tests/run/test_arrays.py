"""Zarr arrays that this project did not write (version 2, other codecs) are refused before a chunk is decoded."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.core import store
from stages.core.data import dataset
from stages.core.latents.pooling import PooledLatentsError
from stages.core.sae import WEIGHTS_FNAME, SAEError
from tests.imports import ROOT
from tests.soak.damage import MARKER, Bomb
from tests.soak.inputs import arrays, sae
from tests.soak.judge import WATCH


def make_remote_store():
    tokens = np.ones((4, 5, 8), np.float32)
    with store.create(arrays.STORE_DPATH, *tokens.shape, shard_images=2, remote=f"file://{Path.cwd()}/far") as new:
        new.append(tokens)
        new.attributes = {"layer": 1, "model": "m", "module": "b", "dataset_sha256": "d"}


IMAGES_DPATH = arrays.DATASET_DPATH / "images.zarr"
STORES = {  # how it is made, an array in it, how it is read, the error
    "activations": (arrays.make_store, arrays.STORE_DPATH / "tokens", arrays.use_store, store.StoreError),
    "activations elsewhere": (make_remote_store, Path("far/l1.zarr/tokens"), arrays.use_store, store.StoreError),
    "images": (arrays.make_dataset, IMAGES_DPATH / "image", arrays.use_dataset, dataset.DatasetError),
    "masks": (arrays.make_dataset, IMAGES_DPATH / "face", arrays.use_dataset, dataset.DatasetError),
    "pooled latents": (arrays.make_codes, arrays.CODES_DPATH / "effect", arrays.use_codes, PooledLatentsError),
}
SAID = {
    "version 2": "version 2, not 3 (codecs: 'pickle')",
    "group of version 2": "version 2, not 3 (codecs: 'pickle')",
    "codec": "codec 'numcodecs.delta' is not one that this project writes",
    "inner codec": "codec 'gzip' is not one that this project writes",
}


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("planted", arrays.FOREIGN)
def test_a_foreign_array_is_refused_by_path_and_codec(tmp_path, monkeypatch, kind, planted):
    make, array, use, error = STORES[kind]
    monkeypatch.chdir(tmp_path)
    make()
    use()
    arrays.FOREIGN[planted](array)
    with pytest.raises(error) as caught, WATCH.watching(()):
        use()
    said = str(caught.value)
    assert str(array) in said and SAID[planted] in said and "nothing was decoded" in said and "rerun" in said
    assert not WATCH.seen and not Path(MARKER).exists()


def test_consolidated_metadata_do_not_describe_the_arrays_a_second_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays.make_codes()
    fpath = arrays.CODES_DPATH / "zarr.json"
    described = json.loads((arrays.CODES_DPATH / "effect" / "zarr.json").read_text())
    described["codecs"].append({"name": "gzip", "configuration": {"level": 1}})
    kept = {"kind": "inline", "must_understand": False, "metadata": {"effect": described}}
    fpath.write_text(json.dumps({**json.loads(fpath.read_text()), "consolidated_metadata": kept}))
    arrays.use_codes()


@pytest.mark.parametrize("url", ["memory://a/b", "http://host/a", "simplecache::s3://a", "s3://a::file://b"])
def test_a_pointer_to_another_kind_of_url_is_not_followed(tmp_path, url):
    place = tmp_path / "l1.zarr"
    place.write_text(json.dumps({"url": url, "attributes": {}}))
    with pytest.raises(store.StoreError, match="no such URL is opened, only s3://, gs://"):
        store.open(place)
    with (
        pytest.raises(store.StoreError, match="no such URL"),
        store.create(tmp_path / "a", 1, 1, 1, shard_images=1, remote=url),
    ):
        pass


def test_a_pickle_in_place_of_the_weights_of_an_sae_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sae.make()
    (sae.DPATH / WEIGHTS_FNAME).unlink()
    torch.save(Bomb(), sae.DPATH / WEIGHTS_FNAME)
    with pytest.raises(SAEError, match=r"sae_weights\.safetensors is missing, cut short or not a safetensors file"):
        sae.use()
    assert not Path(MARKER).exists()


def test_arrays_are_created_and_opened_in_one_place():
    """`zarr` itself is imported there alone. Elsewhere, only its codecs and errors are."""
    found = []
    for fpath in sorted((ROOT / "stages").rglob("*.py")):
        for node in ast.walk(ast.parse(fpath.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            found += [
                fpath.name
                for name in names
                if name.split(".")[0] == "zarr" and name not in ("zarr.codecs", "zarr.errors")
            ]
    assert set(found) == {"arrays.py"}

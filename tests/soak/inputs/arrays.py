"""What is kept as Zarr: activations, the dataset, codes."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator

from stages.core import store
from stages.core.data import dataset
from stages.core.latents.pooling import FIELDS, PooledLatents
from stages.core.paired import Pairs
from stages.core.run import labels
from tests.soak.damage import Bomb, pick, spoil_file, spoil_json
from tests.soak.inputs.kinds import D_IN, D_SAE, N_IMAGES, SIDE, Damage, digest

STORE_DPATH, DATASET_DPATH = Path("data/activations/l1.zarr"), Path("data/dataset")
CODES_DPATH = Path("data/selection_by_image/pooled.zarr")


def damage_zarr(rng: Generator, directory: Path, named: Path | None = None) -> Damage:
    """Damage to chunks, which must be noticed, or to what describes them."""
    described = sorted(directory.rglob("zarr.json"))
    chunks = sorted(path for path in directory.rglob("*") if path.is_file() and path not in described)
    kind = pick(rng, ("chunk", "chunk", "chunk", "described", "described file", "foreign"))
    if kind == "foreign":
        found = pick(rng, [path.parent for path in described if path.parent != directory])
        plant = pick(rng, FOREIGN)
        FOREIGN[plant](found)
        return Damage(f"{found}: {plant}", (str(named or directory),))
    if kind == "chunk":
        return Damage(spoil_file(pick(rng, chunks), rng), (str(named or directory),), must_show=True)
    spoil = spoil_json if kind == "described" else spoil_file
    return Damage(spoil(pick(rng, described), rng), (str(named or directory),))


def plant_version_2(array: Path) -> None:
    """An array of Zarr version 2 in place of `array`. Its chunk is a pickle, and its filter would read the pickle."""
    shape = json.loads((array / "zarr.json").read_text())["shape"]
    shutil.rmtree(array)
    array.mkdir()
    pickled = {"id": "pickle", "protocol": 5}
    described = {"zarr_format": 2, "shape": shape, "chunks": shape, "dtype": "|O", "order": "C", "fill_value": None}
    (array / ".zarray").write_text(json.dumps({**described, "compressor": None, "filters": [pickled]}))
    (array / ".".join("0" * len(shape))).write_bytes(pickle.dumps(Bomb()))


def plant_group_of_version_2(array: Path) -> None:
    """The same, in a group of version 2."""
    plant_version_2(array)
    (array.parent / "zarr.json").unlink()
    (array.parent / ".zgroup").write_text(json.dumps({"zarr_format": 2}))


def plant_codec(array: Path) -> None:
    """A codec that this project does not write, in front of the codecs of an array."""
    described = json.loads((array / "zarr.json").read_text())
    described["codecs"].insert(0, {"name": "numcodecs.delta", "configuration": {"dtype": "<f4"}})
    (array / "zarr.json").write_text(json.dumps(described))


def plant_inner_codec(array: Path) -> None:
    """A codec that this project does not write, for the chunks of a shard. Without shards, for all chunks."""
    described = json.loads((array / "zarr.json").read_text())
    codecs = described["codecs"][0].get("configuration", {}).get("codecs", described["codecs"])
    codecs.append({"name": "gzip", "configuration": {"level": 1}})
    (array / "zarr.json").write_text(json.dumps(described))


FOREIGN = {
    "version 2": plant_version_2,
    "group of version 2": plant_group_of_version_2,
    "codec": plant_codec,
    "inner codec": plant_inner_codec,
}


def make_store() -> None:
    tokens = np.random.default_rng(0).normal(size=(N_IMAGES, 5, D_IN)).astype(np.float32)
    with store.create(STORE_DPATH, *tokens.shape, shard_images=2) as new:
        new.append(tokens)
        new.attributes = {"layer": 1, "model": "m", "module": "b", "dataset_sha256": "d"}


def damage_store(rng: Generator) -> Damage:
    return damage_zarr(rng, STORE_DPATH)


def use_store() -> str:
    opened = store.open(STORE_DPATH)
    tokens = opened.read(slice(None))
    assert tokens.dtype == np.float32 and tokens.shape == opened.shape and tokens.ndim == 3, tokens.dtype
    assert (opened.read(np.array([0])) == tokens[:1]).all() and opened.shard_images >= 1 and opened.provenance
    return digest(tokens)


def make_dataset() -> None:
    rng = np.random.default_rng(0)
    keys = ("image", "identity", "condition", "emotion", "split", "pair")
    rows = [
        (f"{woman}_{condition}", woman, condition, "sad", split, pair)
        for pair, (woman, split) in enumerate((("anna", "discovery"), ("bea", "confirmation")))
        for condition in labels.CONDITIONS
    ]
    table = pd.DataFrame([*rows, ("other", "", "", "", "corpus", -1)], columns=list(keys))
    images = rng.integers(0, 255, (N_IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    masks = rng.integers(0, 255, (2, N_IMAGES, SIDE, SIDE), dtype=np.uint8)
    prompts = {"sad": ["a sad woman"], "happy": ["a happy woman"]}
    with dataset.create(DATASET_DPATH, table, SIDE, prompts) as append:
        append(images, *masks)


def damage_dataset(rng: Generator) -> Damage:
    if rng.random() < 0.4:
        return Damage(spoil_file(DATASET_DPATH / "manifest.csv", rng), (str(DATASET_DPATH),))
    return damage_zarr(rng, DATASET_DPATH / "images.zarr", DATASET_DPATH)


def use_dataset() -> str:
    data = dataset.load(DATASET_DPATH)
    rows = np.arange(len(data.table))
    images, audit = data.images(rows), data.audit_rows()
    masks = [data.mask(region, audit) for region in labels.REGIONS]
    side = data.image_size
    assert images.shape == (len(rows), side, side, 3) and images.dtype == np.uint8, images.shape
    assert all(mask.shape == (len(audit), side, side) and mask.any((1, 2)).all() for mask in masks), "an empty mask"
    pairs = Pairs.from_images(data.table).table
    assert len(pairs) and not pairs.isna().to_numpy().any(), pairs
    assert (data.emotion_index(audit) >= 0).all() and all(data.prompts.values()) and len(data.sha256) == 64
    return digest(images, *masks, pairs[list(labels.CONDITIONS)].to_numpy())


def make_codes() -> None:
    rng = np.random.default_rng(0)
    fields = {name: rng.random((N_IMAGES, D_SAE), dtype=np.float32) for name in FIELDS}
    PooledLatents(**fields, firing=rng.random(D_SAE)).save(CODES_DPATH)


def damage_codes(rng: Generator) -> Damage:
    return damage_zarr(rng, CODES_DPATH)


def use_codes() -> str:
    codes = PooledLatents.load(CODES_DPATH)
    arrays = [getattr(codes, name) for name in (*FIELDS, "firing")]
    assert len({array.shape for array in arrays[:-1]}) == 1 and arrays[-1].shape == arrays[0].shape[1:]
    return digest(*arrays)

"""The activation store: what is written is read back, and damage is never read as numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stages.core import store
from stages.core.data import shards

ATTRIBUTES = {"layer": 1, "model": "m", "module": "b", "dataset_sha256": "d"}


def filled(path, n=7, shard=3, batches=(2, 4, 1), **options):
    tokens = np.random.default_rng(0).normal(size=(n, 5, 4)).astype(np.float32)
    with store.create(path, n, 5, 4, shard_images=shard, **options) as new:
        new.attributes = ATTRIBUTES
        start = 0
        for size in batches:
            new.append(tokens[start : start + size])
            start += size
    return tokens


def shard_files(path):
    return sorted(p for p in (path / "tokens" / "c").rglob("*") if p.is_file())


def test_round_trip_whatever_the_batches(tmp_path):
    for i, batches in enumerate([(7,), (1,) * 7, (2, 4, 1)]):
        tokens = filled(tmp_path / f"{i}.zarr", batches=batches)
        opened = store.open(tmp_path / f"{i}.zarr")
        assert (opened.read(slice(None)) == tokens).all()
        assert (opened.read(np.array([5, 0])) == tokens[[5, 0]]).all()
        assert opened.shape == (7, 5, 4)
        assert opened.provenance == {"model": "m", "module": "b", "dataset_sha256": "d"}


def test_one_file_per_shard(tmp_path):
    filled(tmp_path / "s.zarr")
    assert len(shard_files(tmp_path / "s.zarr")) == 3


def test_a_missing_or_damaged_shard_is_an_error(tmp_path):
    filled(tmp_path / "s.zarr")
    shard = shard_files(tmp_path / "s.zarr")[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    with pytest.raises(shards.DamagedError, match=r"s\.zarr.*damaged.*dvc repro --force extract"):
        store.open(tmp_path / "s.zarr").read(slice(None))
    shard.unlink()
    with pytest.raises(shards.DamagedError, match=r"s\.zarr.*lacks a shard.*dvc repro --force extract"):
        store.open(tmp_path / "s.zarr")


def test_zeros_are_written_like_all_else(tmp_path):
    with store.create(tmp_path / "s.zarr", 2, 5, 4, shard_images=1) as new:
        new.append(np.zeros((2, 5, 4), np.float32))
    assert (store.open(tmp_path / "s.zarr").read(slice(None)) == 0).all()


def test_what_is_not_finite_or_missing_is_refused_and_what_was_there_stays(tmp_path):
    tokens = filled(tmp_path / "s.zarr")
    for given, error, says in (
        (np.inf, store.StoreError, r"s\.zarr: activations of images 0 to 1 are not finite; set compute\.precision"),
        (0.0, ValueError, "images up to 2 of 7"),
    ):
        with (
            pytest.raises(error, match=says),
            store.create(tmp_path / "s.zarr", 7, 5, 4, shard_images=2) as new,
        ):
            new.append(np.full((2, 5, 4), given, np.float32))
        assert (store.open(tmp_path / "s.zarr").read(slice(None)) == tokens).all()
        assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]
    with pytest.raises(store.StoreError, match="dvc repro extract"):
        store.open(tmp_path / "nowhere.zarr")


def test_a_store_elsewhere_is_followed_and_has_to_be_the_one_told_of(tmp_path):
    tokens = filled(tmp_path / "s.zarr", remote=f"file://{tmp_path}/elsewhere/")
    assert (tmp_path / "s.zarr").is_file()
    assert len(shard_files(tmp_path / "elsewhere" / "s.zarr")) == 3
    assert (store.open(tmp_path / "s.zarr").read(slice(None)) == tokens).all()
    kept = json.loads((tmp_path / "s.zarr").read_text())
    (tmp_path / "s.zarr").write_text(json.dumps({**kept, "attributes": {**ATTRIBUTES, "model": "another"}}))
    with pytest.raises(store.StoreError, match="other activations"):
        store.open(tmp_path / "s.zarr")
    (tmp_path / "s.zarr").write_text("[]")
    with pytest.raises(store.StoreError, match="no activation store"):
        store.open(tmp_path / "s.zarr")

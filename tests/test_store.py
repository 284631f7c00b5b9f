"""The activation store: what is written is read back, and damage is never read as numbers."""

from __future__ import annotations

import numpy as np
import pytest

from stages.core import store


def filled(path, n=7, shard=3, batches=(2, 4, 1)):
    tokens = np.random.default_rng(0).normal(size=(n, 5, 4)).astype(np.float32)
    with store.create(path, n, 5, 4, shard_images=shard) as writer:
        start = 0
        for size in batches:
            writer.append(tokens[start : start + size])
            start += size
        writer.close({"layer": 1, "model": "m", "module": "b", "dataset_sha256": "d"})
    return tokens


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
    assert len([p for p in (tmp_path / "s.zarr" / "tokens" / "c").rglob("*") if p.is_file()]) == 3


def test_a_missing_or_damaged_shard_is_an_error(tmp_path):
    filled(tmp_path / "s.zarr")
    shard = sorted(p for p in (tmp_path / "s.zarr" / "tokens" / "c").rglob("*") if p.is_file())[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    with pytest.raises(store.StoreError, match="damaged"):
        store.open(tmp_path / "s.zarr").read(slice(None))
    shard.unlink()
    with pytest.raises(store.StoreError, match="lacks a shard"):
        store.open(tmp_path / "s.zarr").read(slice(None))


def test_what_is_not_finite_or_missing_is_refused(tmp_path):
    infinite = np.full((2, 5, 4), np.inf, np.float32)
    with (
        store.create(tmp_path / "a.zarr", 2, 5, 4, shard_images=2) as writer,
        pytest.raises(ValueError, match="finite"),
    ):
        writer.append(infinite)
    with store.create(tmp_path / "b.zarr", 2, 5, 4, shard_images=2) as writer:
        writer.append(np.zeros((1, 5, 4), np.float32))
        with pytest.raises(ValueError, match="1 of 2 images"):
            writer.close({})
    with pytest.raises(store.StoreError, match="dvc repro extract"):
        store.open(tmp_path / "nowhere.zarr")

"""The audit set: pairs of pictures of the same woman with the same expression, semi-nude and clothed.

On disk (`data/dataset`):
    manifest.csv   a row per image, in the order of the arrays (columns below)
    images.zarr    image [n, s, s, 3] uint8 RGB; bust, face [n, s, s] uint8, share of the pixel inside (255 = all)

Columns of the manifest as stored:
    image       file name (or the name of a drawn portrait)
    identity    the woman; empty for corpus images
    condition   semi_nude | clothed; empty for corpus images
    emotion     of the face; one of `ingest.emotions`; empty for corpus images
    intensity   optional label that tells takes of one expression apart
    prompt      the text that names the emotion
    split       discovery | confirmation | corpus, assigned by woman
    pair        number shared by the two twins; -1 for corpus images
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from jaxtyping import UInt8

CONDITIONS = SEMI_NUDE, CLOTHED = ("semi_nude", "clothed")
REGIONS = ("bust", "face")
SHARD_IMAGES = 256


@dataclass(frozen=True)
class Dataset:
    """An opened `data/dataset`. Arrays stay on disk until indexed."""

    table: pd.DataFrame
    arrays: Any
    prompts: dict[str, str]
    """Prompt of each emotion: the set the emotion readout chooses among."""
    sha256: str

    @property
    def emotions(self) -> list[str]:
        return list(self.prompts)

    @property
    def image_size(self) -> int:
        return int(self.arrays["image"].shape[1])

    def images(self, rows: np.ndarray | slice) -> UInt8[np.ndarray, "n s s 3"]:
        """Pixels of the images in `rows`."""
        return _take(self.arrays["image"], rows)

    def mask(self, region: str, rows: np.ndarray | slice) -> UInt8[np.ndarray, "n s s"]:
        """Bust or face masks of the images in `rows`; 255 is inside."""
        return _take(self.arrays[region], rows)

    def rows(self, *splits: str) -> np.ndarray:
        """Indices of the images of some splits, in stored order."""
        return np.flatnonzero(self.table["split"].isin(splits))

    def audit_rows(self) -> np.ndarray:
        """Indices of all audit images (both splits of women)."""
        return self.rows("discovery", "confirmation")

    def pairs(self, split: str | None = None) -> pd.DataFrame:
        """A row per pair: identity, emotion, split, and the image indices `semi_nude` and `clothed`."""
        audit = self.table[self.table["pair"] >= 0]
        wide = audit.reset_index(names="row").pivot(index="pair", columns="condition", values="row")
        labels = audit.groupby("pair")[["identity", "emotion", "split"]].first()
        pairs = labels.join(wide).reset_index()
        return pairs if split is None else pairs[pairs["split"] == split].reset_index(drop=True)

    def emotion_index(self, rows: np.ndarray) -> np.ndarray:
        """Position of each image's true emotion among `emotions`."""
        return np.array([self.emotions.index(e) for e in self.table["emotion"].iloc[rows]], dtype=np.int64)


def _take(array: Any, rows: np.ndarray | slice) -> np.ndarray:
    return np.asarray(array[rows] if isinstance(rows, slice) else array.oindex[np.asarray(rows)])


def assign_splits(identities: list[str], discovery_share: float, seed: int) -> dict[str, str]:
    """Split women, never images: `discovery_share` of them (at least one on each side) to discovery."""
    women = sorted(set(identities))
    if len(women) < 2:
        raise ValueError(f"{len(women)} woman in the audit set; at least 2 are needed, one for each split")
    n_discovery = min(max(round(len(women) * discovery_share), 1), len(women) - 1)
    chosen = set(np.random.default_rng(seed).permutation(women)[:n_discovery].tolist())
    return {woman: "discovery" if woman in chosen else "confirmation" for woman in women}


def save(
    directory: Path,
    table: pd.DataFrame,
    image: UInt8[np.ndarray, "n s s 3"],
    bust: UInt8[np.ndarray, "n s s"],
    face: UInt8[np.ndarray, "n s s"],
    prompts: dict[str, str],
) -> None:
    """Write a dataset in place of what `directory` holds."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    table.to_csv(directory / "manifest.csv", index=False)
    group = zarr.create_group(directory / "images.zarr")
    for name, values in (("image", image), ("bust", bust), ("face", face)):
        shard = (min(SHARD_IMAGES, len(values)), *values.shape[1:])
        array = group.create_array(
            name, shape=values.shape, dtype="uint8", chunks=(1, *values.shape[1:]), shards=shard, fill_value=0
        )
        array[:] = values
    group.attrs.update({"prompts": prompts, "sha256": _fingerprint(table, prompts, image, bust, face)})


def load(directory: Path) -> Dataset:
    """Open a dataset written by `save`."""
    table = pd.read_csv(directory / "manifest.csv", dtype=str, keep_default_na=False)
    table["pair"] = table["pair"].astype(int)
    arrays: Any = zarr.open_group(directory / "images.zarr", mode="r")
    return Dataset(table, arrays, dict(arrays.attrs["prompts"]), str(arrays.attrs["sha256"]))


def _fingerprint(table: pd.DataFrame, prompts: dict[str, str], *arrays: np.ndarray) -> str:
    digest = hashlib.sha256(table.to_csv(index=False).encode())
    digest.update(json.dumps(prompts).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()

"""The activation store: tokens [image, token, width] of one layer, in sharded Zarr v3.

A chunk holds one image, a shard (one file) `shard_images` of them. Every chunk carries a CRC32C
checksum, so a damaged file is an error and never a number. The store's attributes say what the
activations are: model, module path, layer, dataset hash, and the normalisation statistics
    mean                 [width], over the tokens of all images but those of confirmation women
    mean_squared_norm    E |x - mean|^2 over the same tokens
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float32
from zarr.codecs import Crc32cCodec
from zarr.errors import GroupNotFoundError


class StoreError(SystemExit):
    """A store that cannot be read. Exits with its path and the remedy."""


class Writer:
    """Fills a store in image order, a whole shard at a time, while the caller computes the next batch."""

    def __init__(self, directory: Path, n_images: int, n_tokens: int, width: int, shard_images: int):
        self.group = zarr.create_group(directory, overwrite=True)
        self.shard_images = min(shard_images, n_images)
        self.array = self.group.create_array(
            "tokens",
            shape=(n_images, n_tokens, width),
            dtype="float32",
            chunks=(1, n_tokens, width),
            shards=(self.shard_images, n_tokens, width),
            compressors=[Crc32cCodec()],
            fill_value=float("nan"),
        )
        self._shard = np.empty((self.shard_images, n_tokens, width), np.float32)
        self._filled = self._written = 0
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[None] | None = None

    def append(self, tokens: Float32[np.ndarray, "batch token width"]) -> None:
        """Add the next images. Raises ValueError if an activation is not finite."""
        if not np.isfinite(tokens).all():
            first = self._written + self._filled
            raise ValueError(f"activations of images {first} to {first + len(tokens) - 1} are not finite")
        start = 0
        while start < len(tokens):
            taken = min(self.shard_images - self._filled, len(tokens) - start)
            self._shard[self._filled : self._filled + taken] = tokens[start : start + taken]
            self._filled += taken
            start += taken
            if self._filled == self.shard_images:
                self._flush()

    def _flush(self) -> None:
        if self._pending is not None:
            self._pending.result()
        shard, self._shard = self._shard, np.empty_like(self._shard)
        self._pending = self._pool.submit(self._write, self._written, shard[: self._filled])
        self._written += self._filled
        self._filled = 0

    def _write(self, start: int, shard: np.ndarray) -> None:
        self.array[start : start + len(shard)] = shard

    def close(self, attributes: dict[str, Any]) -> None:
        """Write what is left and the attributes. Raises ValueError if images are missing."""
        if self._filled:
            self._flush()
        if self._pending is not None:
            self._pending.result()
        if self._written != self.array.shape[0]:
            raise ValueError(f"{self._written} of {self.array.shape[0]} images were appended")
        self.group.attrs.update(attributes)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()


def create(directory: Path, n_images: int, n_tokens: int, width: int, *, shard_images: int) -> Writer:
    """A new, empty store. Use as a context manager; `append` batches, then `close` with the attributes."""
    return Writer(directory, n_images, n_tokens, width, shard_images)


class Store:
    """An opened store. Shape [image, token, width]; indexing with rows reads float32 tokens."""

    def __init__(self, directory: Path, group: Any):
        self.directory, self.group, self.array = directory, group, group["tokens"]

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self.group.attrs)

    @property
    def provenance(self) -> dict[str, str]:
        """Which model and data these activations are of."""
        return {key: str(self.attributes[key]) for key in ("model", "module", "dataset_sha256")}

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(self.array.shape)

    @property
    def shard_images(self) -> int:
        """Images in one shard, the last one perhaps excepted."""
        return int(self.array.shards[0])

    def read(self, rows: np.ndarray | slice) -> Float32[np.ndarray, "n token width"]:
        """Tokens of some images. Raises StoreError if a shard is missing or damaged."""
        try:
            tokens = np.asarray(self.array[rows] if isinstance(rows, slice) else self.array.oindex[np.asarray(rows)])
        except (ValueError, OSError, RuntimeError) as error:
            raise StoreError(
                f"{self.directory} is damaged ({error}); remove it and rerun `dvc repro extract`"
            ) from None
        if np.isnan(tokens).any():
            raise StoreError(f"{self.directory} lacks a shard; remove it and rerun `dvc repro extract`")
        return tokens


def open(directory: Path) -> Store:
    """Open a store. Raises StoreError if there is none."""
    try:
        return Store(directory, zarr.open_group(directory, mode="r"))
    except (GroupNotFoundError, FileNotFoundError, KeyError):
        raise StoreError(f"{directory} holds no activation store; run `dvc repro extract`") from None

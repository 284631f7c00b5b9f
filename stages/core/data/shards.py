"""Arrays of images larger than memory, in sharded Zarr v3: written a shard at a time, with a checksum on every chunk.

A chunk holds one image. A shard is one file and holds many chunks. A missing shard or a damaged chunk raises an error;
it is never read as numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Shaped

from stages.core.run import faults, outs
from stages.core.run.errors import StudyError


class DamagedError(StudyError):
    """An array has a missing shard (file of the array) or a wrong checksum, or cannot be reached.

    The message names the path of the array and the remedy.
    """


class WriteError(StudyError):
    """An array cannot be written. The message names the path of the array and the reason."""


def create(
    group: Any, name: str, shape: Sequence[int], dtype: str, *, shard_images: int, compressors: Sequence[Any]
) -> Any:
    """Create an array of images in a Zarr group. Returns the Zarr array, without images; a `Writer` fills it.

    group: open Zarr group (version 3). name: name of the array. dtype: type of its numbers, such as uint8.
    shape: shape of the whole array; the first axis is the image.
    shard_images: images in one shard, which is one file.
    compressors: Zarr codecs for a chunk. At least one must write a checksum.
    """
    return group.create_array(
        name,
        shape=tuple(shape),
        dtype=dtype,
        chunks=(1, *shape[1:]),
        shards=(min(shard_images, shape[0]), *shape[1:]),
        compressors=compressors,
        fill_value=0,
    )


def check_whole(array: Any, remedy: str) -> None:
    """Raise DamagedError if a shard (a file of the array) is missing or empty.

    Zarr itself gives no error here. It takes the shard for images that were never written.
    array: a sharded Zarr array. remedy: what the user can do. The message ends with this text.
    """
    directory = Path(str(array.store_path).removeprefix("file://"))
    empty = [fpath for fpath in directory.rglob("*") if fpath.is_file() and not fpath.stat().st_size]
    if empty or array.nchunks_initialized < array.nchunks:
        raise DamagedError(f"{array.store_path} lacks a shard; {remedy}")


def read(array: Any, rows: np.ndarray | slice, remedy: str) -> Shaped[np.ndarray, "n ..."]:
    """Read some images of an array, and return them in the order of `rows`.

    array: a Zarr array whose first axis is the image.
    rows: indices of the images along the first axis.
    remedy: what the user can do about damage. The message of DamagedError ends with this text.
    Raises DamagedError if an image is damaged or out of reach. Raises IndexError for an index outside the array.
    """
    try:
        return np.asarray(array[rows] if isinstance(rows, slice) else array.oindex[np.asarray(rows)])
    except IndexError:
        raise
    except Exception as error:  # each codec, and each kind of object storage, has its own error classes
        if faults.of_machine(error):
            raise
        raise DamagedError(f"{array.store_path} is damaged or out of reach ({error}); {remedy}") from None


class Writer:
    """Writes the images from `first` up to, not including, `stop` into an array that `create` returned.

    A shard is one file of the array. first: index of the first image of a shard.
    stop: index of the first image of a later shard, or the number of images in the array (the default).
    Use as a context manager. A thread writes each full shard while the caller computes the next images. The last shard
    is written when the context ends. The end of the context raises ValueError if images are missing.
    """

    def __init__(self, array: Any, first: int = 0, stop: int | None = None):
        self.array = array.with_config({"write_empty_chunks": True})  # a shard without a file counts as missing
        self._written, self._stop = first, array.shape[0] if stop is None else stop
        self._shard = np.empty(array.shards, array.dtype)
        self._filled = 0
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[None] | None = None

    @property
    def next(self) -> int:
        """Index of the next image in the array: the first image that was not appended yet."""
        return self._written + self._filled

    def append(self, images: Shaped[np.ndarray, "n ..."]) -> None:
        """Add the next images, in order. Any number can be added at once. A full shard (file) is written.

        images: numbers of the shape and type of the array, with the image as the first axis.
        Raises WriteError if an earlier shard could not be written. An error that means a full disk passes unchanged.
        """
        while len(images):
            taken, images = np.split(images, [len(self._shard) - self._filled])
            self._shard[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            if self._filled == len(self._shard):
                self._flush()

    def _flush(self) -> None:
        if self._pending is not None:
            self._pending.result()
        shard, self._shard = self._shard[: self._filled], np.empty_like(self._shard)
        self._pending = self._pool.submit(self._write, self._written, shard)
        self._written, self._filled = self.next, 0

    def _write(self, start: int, shard: np.ndarray) -> None:
        try:
            self.array[start : start + len(shard)] = shard
        except Exception as error:
            if outs.out_of_space(error) or faults.of_machine(error):
                raise
            raise WriteError(f"{self.array.store_path} cannot be written: {error}") from None

    def _finish(self) -> None:
        if self._filled:
            self._flush()
        if self._pending is not None:
            self._pending.result()
        if self._written != self._stop:
            raise ValueError(f"{self.array.store_path}: images up to {self._written} of {self._stop} were appended")

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._pool.shutdown()

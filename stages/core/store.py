"""The activation store: tokens [image, token, width] of one layer, float32, in shards (`core/data/shards.py`).

The attributes of a store say where its activations come from (model, module path, layer, dataset hash). They also hold
the normalisation statistics:
    mean                 [width], over the tokens of all images except those of confirmation women (women held out)
    mean_squared_norm    E |x - mean|^2 over the same tokens

A store that is too large for this machine lies in object storage. Its place on disk then holds a small JSON file with
the URL and the attributes. DVC tracks this file, so later stages depend on the attributes. `open` follows the URL.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64
from zarr.codecs import Crc32cCodec
from zarr.errors import GroupNotFoundError

from stages.core.data import shards
from stages.core.data.dataset import Dataset
from stages.core.run import arrays, inputs, outs
from stages.core.run.arrays import ForeignArrayError
from stages.core.run.compute import ALONE, Ranks
from stages.core.run.errors import StudyError

REMEDY = "rerun `dvc repro --force extract`"


class StoreError(StudyError):
    """A store is missing, out of reach, or not the expected one. The message names the path and the remedy."""


class StoreWriter:
    """An activation store that is being filled. The function `create` gives this object.

    Each process appends the tokens of its own images, in order.
    images: the slice of images that this process must append.
    attributes: dictionary of JSON values, which the caller sets. The first process writes them at the end. An open
        `Store` needs the keys model, module, dataset_sha256, mean and mean_squared_norm.
    """

    def __init__(self, place: Path, array: Any, ranks: Ranks):
        self.place = place
        self.attributes: dict[str, Any] = {}
        self.width, self.shard_images = array.shape[-1], array.shards[0]
        n, shard = array.shape[0], self.shard_images
        mine = ranks.share(-(-n // shard))
        self.images = slice(min(mine.start * shard, n), min(mine.stop * shard, n))
        self.writer = shards.Writer(array, self.images.start, self.images.stop)

    def append(self, tokens: Float32[np.ndarray, "batch token width"]) -> None:
        """Add the tokens of the next images, in the order of the images.

        tokens: the residual stream of these images, class token first.
        Raises StoreError if an activation is not finite, WriteError if an earlier shard could not be written.
        """
        if not np.isfinite(tokens).all():
            first = self.writer.next
            raise StoreError(
                f"{self.place}: activations of images {first} to {first + len(tokens) - 1} are not finite; set "
                "compute.precision to float32, or take other weights"
            )
        self.writer.append(tokens)


@contextmanager
def create(
    place: Path,
    n_images: int,
    n_tokens: int,
    width: int,
    *,
    shard_images: int,
    remote: str = "",
    ranks: Ranks = ALONE,
) -> Iterator[StoreWriter]:
    """Create an activation store: tokens of shape [n_images, n_tokens, width].

    The context gives a StoreWriter, with which the caller appends all images and sets the attributes. The new store
    replaces what is at `place` when the context ends.
    place: folder of the store on this disk. With `remote`: path of the small file that points to the store.
    n_images: number of images. n_tokens: tokens of one image, class token included. width: numbers in a token.
    shard_images: images in one shard, which is one file.
    remote: URL of a folder in object storage that keeps the store. A store of the same name there is overwritten. Empty
        for a store on this disk.
    ranks: number of this process, and number of processes that fill the store together.
    Raises ValueError if images are missing at the end. Raises DiskFull if the disk has no space left. Raises StoreError
    if the storage cannot be reached. Raises WriteError if tokens cannot be written.
    """
    url = f"{remote.rstrip('/')}/{place.name}" if remote else str(outs.unfinished_path(place))
    with outs.atomic_output(place) if ranks.first else outs.naming_full_disk(place):
        if ranks.first:
            with _reaching(url):
                group = arrays.create_group(url, overwrite=True)
                shape = (n_images, n_tokens, width)
                shards.create(group, "tokens", shape, "float32", shard_images=shard_images, compressors=[Crc32cCodec()])
        ranks.wait()  # until the first rank has created the array
        with _reaching(url):
            group = arrays.open_group(url, ["tokens"], writable=True)
            new = StoreWriter(place, group["tokens"], ranks)
        with new.writer:
            yield new
        ranks.wait()  # until every rank has written its shards
        if ranks.first:
            with _reaching(url):
                group.attrs.update(new.attributes)
            if remote:
                outs.unfinished_path(place).write_text(
                    json.dumps({"url": url, "attributes": new.attributes}, indent=2) + "\n"
                )
    ranks.wait()  # until the store is in its place


class Store:
    """An open store: the tokens of all images at one layer, [image, token, width].

    The method `read` returns the tokens of some images.
    place: path of the store, for error messages. group: open Zarr group with the array `tokens`, and the attributes.
    Raises ValueError if `group` holds no sharded float32 array of three axes.
    """

    def __init__(self, place: Path, group: Any):
        self.place, self.array, self.attributes = place, group["tokens"], dict(group.attrs)
        if self.array.ndim != 3 or self.array.dtype != np.float32 or self.array.shards is None:
            raise ValueError(
                f"{self.array.dtype} of shape {self.array.shape}: no sharded float32 [image, token, width]"
            )

    @property
    def provenance(self) -> dict[str, str]:
        """Where these activations come from. Raises StoreError if the store lacks a key.

        model            hash of the model's files (`vit.fingerprint`)
        module           path of the transformer block, such as visual.transformer.resblocks.21
        dataset_sha256   hash of the dataset (`Dataset.sha256`)
        """
        try:
            return {key: str(self.attributes[key]) for key in ("model", "module", "dataset_sha256")}
        except KeyError as missing:
            raise StoreError(f"{self.place} does not say its {missing}; {REMEDY}") from None

    @property
    def moments(self) -> tuple[Float64[np.ndarray, " width"], float]:
        """Mean of the tokens x (a vector), and mean of |x - mean|^2 (a number), in raw units.

        Both are taken over the tokens of all images, except those of the women in the split `confirmation`.
        These women are held out when SAE and latents are chosen.
        Raises StoreError if the store lacks one of the two.
        """
        try:
            mean = np.array(self.attributes["mean"], dtype=np.float64).reshape(self.shape[2])
            return mean, float(self.attributes["mean_squared_norm"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{self.place} does not say its mean and spread ({error!r}); {REMEDY}") from None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of images, tokens of one image, and width of a token."""
        return tuple(self.array.shape)

    @property
    def shard_images(self) -> int:
        """Images in one shard. The last shard may hold fewer."""
        return int(self.array.shards[0])

    def read(self, rows: np.ndarray | slice) -> Float32[np.ndarray, "n token width"]:
        """Return the tokens of some images, class token first, in the order of `rows`.

        rows: indices of the images, which are the row numbers of the dataset's manifest.
        Raises DamagedError if a shard (a file of the store) is damaged or out of reach.
        """
        return shards.read(self.array, rows, REMEDY)


def open(place: Path, data: Dataset | None = None) -> Store:
    """Open the store at `place`, or the remote store that the file at `place` points to.

    data: the dataset that the activations must come from. If not given, the dataset is not checked.
    Returns the open store. The tokens stay in the store until they are read.
    Raises StoreError if there is no store, or if the store comes from another dataset than `data`. Raises StoreError
    also if the attributes of a remote store differ from those in the file. Raises DamagedError if a shard is missing.
    """
    inputs.remember_file(place if place.is_file() else place / "zarr.json")
    pointer = _pointer(place) if place.is_file() else {}
    url = pointer.get("url", str(place))
    with _reaching(url):
        try:
            store = Store(place, arrays.open_group(url, ["tokens"]))
        except (GroupNotFoundError, FileNotFoundError, KeyError):
            raise StoreError(f"{url} holds no activation store; run `dvc repro extract`") from None
        if pointer and pointer["attributes"] != store.attributes:
            raise StoreError(f"{url} holds other activations than {place} describes; {REMEDY}")
        if data is not None and store.provenance["dataset_sha256"] != data.sha256:
            raise StoreError(f"{url} is of another dataset; {REMEDY}")
        shards.check_whole(store.array, REMEDY)
    return store


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Turn an error of the storage behind `url` into StoreError. Each kind of object storage has its own error classes.

    StudyError and an error that means a full disk pass unchanged.
    """
    try:
        yield
    except StudyError:
        raise
    except ForeignArrayError as error:
        raise StoreError(f"{error}; {REMEDY}") from None
    except ImportError as error:
        raise StoreError(f"{url}: {error}") from None
    except Exception as error:
        if outs.out_of_space(error):
            raise
        raise StoreError(f"{url} cannot be reached or used ({error}); check address, rights and network") from None


def _pointer(place: Path) -> dict[str, Any]:
    """URL and attributes of a remote store, from the JSON file at `place`."""
    try:
        kept = json.loads(place.read_text())
        return {"url": str(kept["url"]), "attributes": dict(kept["attributes"])}
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{place} is no activation store, and points to none; {REMEDY}") from None

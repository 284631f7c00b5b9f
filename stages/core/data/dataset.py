"""The audit set: pairs of pictures of the same woman with the same expression, semi-nude and clothed.

On disk (`data/dataset`):
    manifest.csv   a row per image, in the order of the arrays (columns below)
    images.zarr    image [n, s, s, 3] uint8 RGB; bust, face [n, s, s] uint8, share of the pixel inside (255 = all);
                   in shards (`core/data/shards.py`)
    names.csv      only of a folder of images: the key from the names in manifest.csv to those of the folder. No stage
                   reads it

Columns of the manifest as stored:
    image       name of the image in this study, such as pair0000_clothed
    identity    name of the woman in this study, such as woman000; empty for corpus images
    condition   semi_nude | clothed; empty for corpus images
    emotion     shown by the face; one of `ingest.emotions`; empty for corpus images
    intensity   optional label that tells takes of one expression apart
    colour      colour of the top; only where the portraits are drawn; empty for corpus images
    prompt      the text that names the emotion
    split       discovery | confirmation | corpus, assigned by woman
    pair        number shared by the two twins; -1 for corpus images
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Real, UInt8
from zarr.codecs import ZstdCodec

from stages.core.data import shards
from stages.core.run import arrays, faults, inputs, outs
from stages.core.run.arrays import ForeignArrayError
from stages.core.run.errors import StudyError
from stages.core.run.labels import CONDITIONS, REGIONS

ARRAYS = ("image", *REGIONS)
SHARD_IMAGES = 256
REMEDY = "rerun `dvc repro --force ingest`"


class DatasetError(StudyError):
    """The dataset cannot be read. The message names the path of the dataset and the remedy."""


@dataclass(frozen=True)
class Dataset:
    """The open audit set: pictures of women, semi-nude and clothed, with masks and labels.

    Pixels and masks stay on disk until they are read. Images are identified by row number in `table`.
    """

    table: pd.DataFrame
    """The manifest, a row per image. The module docstring lists the columns."""
    arrays: Any
    """Zarr group with the arrays `image`, `bust` and `face`."""
    prompts: dict[str, list[str]]
    """Prompts of each emotion: those that its images have, mostly one. The emotion readout chooses among the
    emotions by these prompts."""
    sha256: str
    """Hash of manifest, prompts, pixels and masks."""

    @property
    def emotions(self) -> list[str]:
        """Names of the emotions, in the order of the prompts."""
        return list(self.prompts)

    @property
    def image_size(self) -> int:
        """Side of the square images, pixels."""
        return int(self.arrays["image"].shape[1])

    def images(self, rows: np.ndarray | slice) -> UInt8[np.ndarray, "n s s 3"]:
        """Return the RGB pixels of some images, in the order of `rows`. s is the side of an image.

        rows: row numbers of the images in `table`. Raises DamagedError if a shard (file of an array) is damaged.
        """
        return shards.read(self.arrays["image"], rows, REMEDY)

    def mask(self, region: str, rows: np.ndarray | slice) -> UInt8[np.ndarray, "n s s"]:
        """Return the masks of a region for some images. A value is the share of the pixel inside the region, times 255.

        So 255 means a pixel wholly inside the region, and 0 a pixel outside.
        region: bust or face. rows: row numbers of the images in `table`. Raises DamagedError if a shard is damaged.
        """
        return shards.read(self.arrays[region], rows, REMEDY)

    def coverage(self, region: str, rows: np.ndarray, grid: tuple[int, int]) -> Float[np.ndarray, "n gh gw"]:
        """Compute the share of each patch's area that lies inside a region, from 0 to 1.

        region: bust or face.
        rows: row numbers of the images in `table`.
        grid: number of patches down (gh) and across (gw) in an image.
        Returns an array with a grid of gh x gw shares for each image.
        Raises ValueError if patches do not tile the image. Raises DamagedError if a shard is damaged.
        """
        chunks = np.split(rows, range(SHARD_IMAGES, len(rows), SHARD_IMAGES))
        return np.concatenate([patch_coverage(self.mask(region, chunk), grid) for chunk in chunks])

    def rows(self, *splits: str) -> np.ndarray:
        """Return the row numbers in `table` of the images in one or more splits, ascending.

        splits: names of splits:
        discovery: images of the women on whom SAE and latents are chosen.
        confirmation: images of the women held out from choosing, on whom claims are made.
        corpus: images that serve only to train SAEs.
        """
        return np.flatnonzero(self.table["split"].isin(splits))

    def audit_rows(self) -> np.ndarray:
        """Return the row numbers in `table` of all images that belong to a pair, ascending.

        A pair is the semi-nude and the clothed image of one woman with one expression.
        """
        return self.rows("discovery", "confirmation")

    def emotion_index(self, rows: np.ndarray) -> np.ndarray:
        """Return, for each image in `rows`, the index of its true emotion in `emotions`.

        rows: row numbers in `table`. Raises ValueError for an image of the split `corpus`, which has no emotion.
        """
        return np.array([self.emotions.index(e) for e in self.table["emotion"].iloc[rows]], dtype=np.int64)


def patch_coverage(mask: UInt8[np.ndarray, "n s s"], grid: tuple[int, int]) -> Float[np.ndarray, "n gh gw"]:
    """Compute the share of each patch's area that lies inside the mask, from 0 to 1.

    mask: one mask per image. 255 means a pixel wholly inside, 0 a pixel outside.
    grid: number of patches down (gh) and across (gw) in an image.
    Returns an array with a grid of gh x gw shares for each image. Raises ValueError if patches do not tile the image.
    """
    return patch_means(mask, grid) / 255.0


def patch_means(values: Real[np.ndarray, "n s s"], grid: tuple[int, int]) -> Float[np.ndarray, "n gh gw"]:
    """Compute the mean of a value per pixel in each patch.

    values: a value for each pixel of n images. grid: number of patches down (gh) and across (gw) in an image.
    Raises ValueError if patches do not tile the image.
    """
    n, height, width = values.shape
    gh, gw = grid
    if height % gh or width % gw:
        raise ValueError(f"a {gh} x {gw} grid does not tile a mask of {height} x {width} pixels")
    return values.reshape(n, gh, height // gh, gw, width // gw).mean(axis=(2, 4))


def assign_splits(identities: list[str], discovery_share: float, seed: int) -> dict[str, str]:
    """Divide the women at random into two splits of at least one woman each: discovery and confirmation.

    SAE and latents are chosen on discovery women. Confirmation women are held out, and claims are made on them.
    identities: name of the woman on each image. A name may appear several times.
    discovery_share: share of the women that goes to discovery. seed: decides which women these are.
    Returns the split of each woman, by name. Raises ValueError for fewer than two women.
    """
    women = sorted(set(identities))
    if len(women) < 2:
        raise ValueError(f"{len(women)} woman in the audit set; at least 2 are needed, one for each split")
    n_discovery = min(max(round(len(women) * discovery_share), 1), len(women) - 1)
    chosen = set(np.random.default_rng(seed).permutation(women)[:n_discovery].tolist())
    return {woman: "discovery" if woman in chosen else "confirmation" for woman in women}


Append = Callable[
    [UInt8[np.ndarray, "n s s 3"], UInt8[np.ndarray, "n s s"], UInt8[np.ndarray, "n s s"]],
    None,
]
"""A function that adds the next images: pixels, bust masks, face masks."""


@contextmanager
def create(
    directory: Path, table: pd.DataFrame, size: int, prompts: dict[str, list[str]], names: pd.DataFrame | None = None
) -> Iterator[Append]:
    """Create a dataset on disk. The new dataset replaces what is at `directory` when the context ends.

    The context gives a function `append(pixels, bust, face)`. The caller adds all images with it, in the order of
    `table`. pixels: RGB of some images. bust, face: masks of these images (255 inside the region, 0 outside).
    table: the manifest, a row per image. Columns: image (its name), identity (the woman), condition, emotion, prompt,
        split and pair (number of the pair). The columns intensity and colour (of the top) are optional.
    size: side of the images, pixels.
    prompts: the prompts of each emotion, by the emotion's name.
    names: a row per image: image and identity as in `table`, file and woman (the names in the folder). The hash of the
        dataset does not depend on them. None if the names in `table` are the only ones.
    Raises ValueError if images are missing at the end. Raises DiskFull if the disk has no space left. Raises WriteError
    if an array cannot be written.
    """
    with outs.atomic_output(directory) as unfinished:
        unfinished.mkdir()
        table.to_csv(unfinished / "manifest.csv", index=False)
        if names is not None:
            names.to_csv(unfinished / "names.csv", index=False)
        group = arrays.create_group(unfinished / "images.zarr")
        digests = {name: hashlib.sha256() for name in ARRAYS}
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(shards.Writer(_array(group, name, len(table), size))) for name in ARRAYS
            }

            def append(*given: UInt8[np.ndarray, "n s s ..."]) -> None:
                for name, values in zip(ARRAYS, given, strict=True):
                    writers[name].append(values)
                    digests[name].update(np.ascontiguousarray(values).data)

            yield append
        labels = hashlib.sha256(table.to_csv(index=False).encode() + json.dumps(prompts).encode())
        digest = hashlib.sha256("".join(hashed.hexdigest() for hashed in (labels, *digests.values())).encode())
        group.attrs.update({"prompts": prompts, "sha256": digest.hexdigest()})


def _array(group: Any, name: str, n: int, size: int) -> Any:
    shape = _shape(name, n, size)
    return shards.create(group, name, shape, "uint8", shard_images=SHARD_IMAGES, compressors=[ZstdCodec(checksum=True)])


def _shape(name: str, n: int, size: int) -> tuple[int, ...]:
    return (n, size, size, 3) if name == "image" else (n, size, size)


def load(directory: Path) -> Dataset:
    """Open the dataset in `directory`, and check that manifest, arrays and prompts fit together.

    Returns the open dataset. Its pixels stay on disk until they are read.
    Raises DatasetError if the dataset is missing or damaged. Raises DamagedError if a shard (file of an array) is
    missing.
    """
    inputs.remember_file(directory / "manifest.csv")
    try:
        table = pd.read_csv(directory / "manifest.csv", dtype=str, keep_default_na=False)
        table["pair"] = table["pair"].astype(int)
        group = arrays.open_group(directory / "images.zarr", ARRAYS)
        opened = Dataset(table, group, dict(group.attrs["prompts"]), str(group.attrs["sha256"]))
        _check(opened)
    except ForeignArrayError as error:
        raise DatasetError(f"{error}; {REMEDY}") from None
    except Exception as error:  # from Zarr, its codecs, or the JSON that describes the arrays
        if faults.of_machine(error):
            raise
        raise DatasetError(f"{directory} is missing or damaged ({error!r}); {REMEDY}") from None
    for name in ARRAYS:
        shards.check_whole(opened.arrays[name], REMEDY)
    return opened


def _check(data: Dataset) -> None:
    """Raise ValueError if the arrays, the manifest and the prompts do not fit together."""
    n, side = len(data.table), data.image_size
    for name in ARRAYS:
        array, wanted = data.arrays[name], _shape(name, n, side)
        if array.shape != wanted or array.dtype != np.uint8:
            raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, expected uint8 of shape {wanted}")
    audit, corpus = data.table[data.table["pair"] >= 0], data.table[data.table["pair"] < 0]
    known = audit["split"].isin(["discovery", "confirmation"]) & audit["emotion"].isin(data.emotions)
    if audit.empty or not known.all() or not (corpus["split"] == "corpus").all():
        raise ValueError("manifest.csv names an unknown split or emotion")
    if (audit.groupby("pair")["condition"].agg(sorted).map(tuple) != tuple(sorted(CONDITIONS))).any():
        raise ValueError("manifest.csv has a pair that is not one image of each condition")
    if not all(map(_are_prompts, data.prompts.values())) or len(data.sha256) != 64:
        raise ValueError("images.zarr lacks prompts or its hash")


def _are_prompts(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(isinstance(prompt, str) and prompt for prompt in given)

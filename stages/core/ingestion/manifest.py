"""The manifest of a folder of images: read it, check it row by row, or propose one from file names.

`manifest.csv` lies beside the images. Paths in it are relative to the folder.

    image,identity,condition,emotion,intensity,prompt,bust_mask,face_mask
    a1.jpg,anna,semi_nude,happy,,a photo of a happy woman,masks/a1_bust.png,masks/a1_face.png
    a2.jpg,anna,clothed,happy,,a photo of a happy woman,masks/a2_bust.png,masks/a2_face.png
    other.jpg,,,,,,,

A row with neither identity nor condition is a *corpus* image: it may only be used to train SAEs.
`intensity` and `prompt` may be left out. All faults of all rows are collected before anything is written. What is
unusual, but may be meant, becomes a warning.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from PIL import Image

from stages.core.ingestion import contents, image_files, label_checks
from stages.core.ingestion.faults import ROW_OF_FIRST_IMAGE, Faults, ManifestError
from stages.core.ingestion.folder import IMAGE_SUFFIXES, Folder
from stages.core.ingestion.prefetch import ordered_map
from stages.core.ingestion.table import FILES, KEY, REQUIRED, is_corpus, read_csv
from stages.core.run import text
from stages.core.run.labels import REGIONS

MANIFEST_FNAME = "manifest.csv"
MAX_ANY = 2  # {any} per pattern; with many, a long file name can be split in more ways than can be tried
HALF = 0.5  # share of a region that the crop may cut away

Image.MAX_IMAGE_PIXELS = None  # `ingest.max_megapixels` sets the limit


@dataclass(frozen=True)
class Limits:
    """What a manifest may contain.

    emotions: the emotions that a row may name.
    max_pixels: largest number of pixels of an image or mask.
    """

    emotions: tuple[str, ...]
    max_pixels: float


def warn_on_stderr(line: str) -> None:
    """Print a warning on the error stream."""
    print(f"warning: {line}", file=sys.stderr)


def read(directory: Path, limits: Limits, warn: Callable[[str], None] = warn_on_stderr) -> pd.DataFrame:
    """Read `manifest.csv` in a folder, and check all its rows and all files that they name.

    directory: the folder.
    limits: the emotions that a row may name, and the largest size of a file in pixels.
    warn: a function that receives each warning, a line of text with file and row: twins whose masks have no point in
        common, a bust whose centre is above that of the face, a bust of which the crop takes half, image files that no
        row names, corpus images with labels or masks, emotions that no image has or of which only some images have a
        prompt.
    Returns a row per image with text in every cell: image, identity, condition, emotion, bust_mask, face_mask,
    intensity and prompt. An empty cell is "". If the file lacks intensity or prompt, that column is "" throughout.

    Raises ManifestError if the file is missing, is no CSV table, or if its columns or rows are not those of a manifest
    (`table.py`).
    Raises ManifestError too if rows have faults, and names every such row. Faults of labels: an unknown label, a text
    with characters that can act in a page or a spreadsheet (`core/run/text.py`), two names of women that look alike, a
    duplicate image, a semi-nude image without its clothed twin or the reverse, a prompt that does not tell emotions
    apart or differs between twins. Faults of files: an image or mask that is missing, unreadable, too large, outside
    the folder, transparent or of one colour; a mask that is empty, grey, inverted, swapped or does not fit its image; a
    face of which the crop takes half.
    """
    fpath = directory / MANIFEST_FNAME
    if not fpath.is_file():
        raise ManifestError(
            f"{fpath} not found. Write one (columns {', '.join(REQUIRED)}), or scaffold it from your file names: "
            "python -m stages.ingest --scaffold '{identity}_{emotion}_{condition}.jpg'"
        )
    table = read_csv(fpath)
    faults, warnings, folder = Faults(fpath), Faults(fpath), Folder(directory)
    label_checks.check(table, limits.emotions, faults)
    masks = _check_files(folder, table, limits, faults, warnings)
    _compare_twins(table, masks, warnings)
    _look_for_unnamed(folder, table, warnings)
    label_checks.look_for_unusual(table, limits.emotions, warnings)
    for line in warnings.lines():
        warn(line)
    faults.stop_if_any()
    return table


Masks = dict[int, dict[str, UInt8[np.ndarray, " bytes"]]]
"""Thumbnails (`contents.thumbnail`) of the sound masks of each audit row, by region."""


def _check_files(folder: Folder, table: pd.DataFrame, limits: Limits, faults: Faults, warnings: Faults) -> Masks:
    names, corpus = table["image"].tolist(), is_corpus(table).to_numpy()
    first_use: dict[str, int] = {}
    for row, name in enumerate(names):
        first_use.setdefault(name, row)
    first_content: dict[str, int] = {}
    masks: Masks = {}

    def check(row: int) -> _Checked:
        return _check_row(folder, table.iloc[row], row, not corpus[row], limits)

    checked = ordered_map(check, first_use.values())
    for row, name in enumerate(names):
        if first_use[name] < row:
            faults.add(row, f"image {name!r} stands in row {first_use[name] + ROW_OF_FIRST_IMAGE} already")
            continue
        found = next(checked)
        for what in found.faults:
            faults.add(row, what)
        for what in found.warnings:
            warnings.add(row, what)
        masks[row] = found.masks
        if found.content in first_content:
            faults.add(
                row, f"image {name!r} is the same picture as row {first_content[found.content] + ROW_OF_FIRST_IMAGE}"
            )
        elif found.content:
            first_content[found.content] = row
    return masks


@dataclass
class _Checked:
    """What was found in the files of a row: faults, warnings, the hash of the image ("" if it cannot be read), and
    thumbnails of the masks."""

    faults: list[str]
    warnings: list[str]
    content: str
    masks: dict[str, UInt8[np.ndarray, " bytes"]]


def _check_row(folder: Folder, labels: pd.Series, row: int, audit: bool, limits: Limits) -> _Checked:
    found = _Checked([], [], "", {})
    try:
        path = _resolve(folder, labels["image"], "image")
        size = _check_image(path, labels["image"], limits)
    except ValueError as error:
        found.faults.append(str(error))
        return found
    found.content = hashlib.sha256(path.read_bytes()).hexdigest()
    masks = {}
    for region in REGIONS if audit else ():
        try:
            masks[region] = _check_mask(folder, labels[f"{region}_mask"], region, size, limits)
        except ValueError as error:
            found.faults.append(str(error))
    if len(masks) == len(REGIONS):
        _check_regions(masks["bust"], masks["face"], found)
    found.masks = {
        region: contents.thumbnail(image_files.square(mask, contents.THUMBNAIL, Image.Resampling.BOX))
        for region, mask in masks.items()
    }
    return found


def _resolve(folder: Folder, name: str, what: str) -> Path:
    """The path of a file that a row names. Raises ValueError if it is missing or outside the folder."""
    if not name:
        raise ValueError(f"{what} is empty")
    path = folder.path / name
    try:
        inside, found = path.resolve().is_relative_to(folder.path.resolve()), path.is_file()
    except (OSError, ValueError, RuntimeError):  # a name too long, a null character, a link to itself
        inside, found = True, False
    if not inside:
        raise ValueError(f"{what} {name!r} leads out of {folder.path}; keep all files inside it")
    if not found:
        raise ValueError(f"{what} {name!r} not found in {folder.path}{folder.hint(name)}")
    return path


def _check_image(path: Path, name: str, limits: Limits) -> tuple[int, int]:
    """The size of a sound image. Raises ValueError for any other."""
    try:
        image = image_files.open_image(path, limits.max_pixels)
    except ValueError as error:
        raise ValueError(f"image {name!r} {error}") from None
    if contents.is_constant(image):
        raise ValueError(f"image {name!r} is of one colour throughout (black, for instance); replace it")
    return image.size


def _check_mask(folder: Folder, name: str, region: str, size: tuple[int, int], limits: Limits) -> Image.Image:
    """The mask of a region, white or black. Raises ValueError if it cannot be used."""
    path = _resolve(folder, name, f"{region}_mask")
    try:
        grey = image_files.open_grey(path, limits.max_pixels)
    except ValueError as error:
        raise ValueError(f"{region}_mask {name!r} {error}") from None
    mask = image_files.black_and_white(grey)
    if mask.size != size:
        found, wanted = "x".join(map(str, mask.size)), "x".join(map(str, size))
        raise ValueError(f"{region}_mask {name!r} is {found} pixels, its image {wanted}; draw it on the image itself")
    if fault := contents.mask_fault(grey, mask, region):
        raise ValueError(f"{region}_mask {name!r} {fault}")
    if image_files.share_lost(mask) == 1:
        raise ValueError(f"{region}_mask {name!r} lies outside the centre square that CLIP sees; crop the image to it")
    return mask


def _check_regions(bust: Image.Image, face: Image.Image, found: _Checked) -> None:
    if fault := contents.regions_fault(bust, face):
        found.faults.append(fault)
    elif warning := contents.regions_warning(bust, face):
        found.warnings.append(warning)
    said = "the crop to the centre square cuts off {:.0%} of the {}; crop the image yourself"
    if (lost := image_files.share_lost(face)) >= HALF:
        found.faults.append(said.format(lost, "face"))
    if (lost := image_files.share_lost(bust)) >= HALF:
        found.warnings.append(said.format(lost, "bust"))


def _compare_twins(table: pd.DataFrame, masks: Masks, warnings: Faults) -> None:
    for _, twins in table[~is_corpus(table)].groupby(KEY, sort=False):
        first, second = int(twins.index[0]), int(twins.index[-1])
        for region in masks.get(first, {}).keys() & masks.get(second, {}).keys():
            if not contents.overlap(masks[first][region], masks[second][region]):
                warnings.add(
                    second,
                    f"the {region} has no point in common with that of the twin in row {first + ROW_OF_FIRST_IMAGE}; "
                    "check that each mask belongs to its image",
                )


def _look_for_unnamed(folder: Folder, table: pd.DataFrame, warnings: Faults) -> None:
    named = {PurePosixPath(name).as_posix() for column in FILES for name in table[column]}
    unnamed = folder.unnamed(named)
    if unnamed:
        warnings.add(None, f"no row names {len(unnamed)} image file(s) in {folder.path}, such as {unnamed[0]!r}")


def glance(folder: Folder, labels: pd.Series, limits: Limits) -> tuple[Image.Image | None, dict[str, Image.Image]]:
    """Open what can be opened of the files that a row names, for a person to look at. No fault stops this.

    folder: that of the manifest. labels: the row. limits: the largest size of a file in pixels.
    Returns the picture, None if it cannot be read; and the masks by region, without those that are not named, cannot be
    read, or have another size than the picture.
    """
    picture = _glanced(folder, labels["image"], limits, image_files.open_image)
    masks = {region: _glanced(folder, labels[f"{region}_mask"], limits, image_files.open_mask) for region in REGIONS}
    return picture, {r: mask for r, mask in masks.items() if picture and mask and mask.size == picture.size}


def _glanced(
    folder: Folder, name: str, limits: Limits, opened: Callable[[Path, float], Image.Image]
) -> Image.Image | None:
    try:
        return opened(_resolve(folder, name, ""), limits.max_pixels)
    except ValueError:
        return None


def scaffold(folder: Path, pattern: str, aliases: dict[str, str]) -> tuple[pd.DataFrame, list[str]]:
    """Propose a manifest from the names of the image files in `folder` and its subfolders, except those in `masks/`.

    pattern: a path with fields, such as '{identity}/{condition}_{emotion}.jpg'. A field matches any text without a
        slash. The fields identity, condition and emotion are required; intensity and any (text to ignore) are optional.
    aliases: replacements of the labels found ('nude' -> 'semi_nude').

    Returns two things: a table with the columns of a manifest, and the names of the image files that did not match the
    pattern. The mask columns name `masks/<name>_bust.png` and `masks/<name>_face.png`. These are files for the user to
    draw; the function does not make them. Prompts are left empty.
    Raises ManifestError for a pattern that cannot be used, and for a file name that is not UTF-8.
    """
    fields = set(re.findall(r"{(\w+)}", pattern))
    wanted = {"identity", "condition", "emotion"}
    if not wanted <= fields or not fields <= wanted | {"intensity", "any"}:
        raise ManifestError(
            f"pattern {pattern!r} must name {{identity}}, {{condition}} and {{emotion}}; "
            "{intensity} and {any} are optional"
        )
    if pattern.count("{any}") > MAX_ANY:
        raise ManifestError(f"pattern {pattern!r} has {{any}} more than {MAX_ANY} times; write out what lies between")
    regex = re.compile(_pattern_to_regex(pattern))
    rows, unmatched = [], []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES):
        name = path.relative_to(folder).as_posix()
        if name.startswith("masks/"):
            continue
        if not _is_utf8(name):
            raise ManifestError(f"{folder}: the file name {name!r} is not UTF-8; rename it")
        found = regex.fullmatch(name)
        if found is None:
            unmatched.append(name)
            continue
        labels = {key: aliases.get(value, value) for key, value in found.groupdict().items()}
        stem = path.relative_to(folder).with_suffix("").as_posix().replace("/", "_")
        masks = {f"{region}_mask": f"masks/{stem}_{region}.png" for region in REGIONS}
        rows.append({"image": name, **labels, **masks})
        for column, value in (("image", name), *labels.items()):
            if fault := text.fault(value):
                raise ManifestError(f"{folder / name}: {column} {value!r} {fault}")
    columns = ["image", "identity", "condition", "emotion", "intensity", "prompt", "bust_mask", "face_mask"]
    return pd.DataFrame(rows, columns=columns).fillna(""), unmatched


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a surrogate, which stands for a byte of another encoding
        return False
    return True


def _pattern_to_regex(pattern: str) -> str:
    parts = re.split(r"{(\w+)}", pattern)
    regex, seen = "", set()
    for i, part in enumerate(parts):
        if i % 2 == 0:
            regex += re.escape(part)
        elif part == "any":
            regex += "[^/]*?"
        elif part in seen:
            regex += f"(?P={part})"
        else:
            regex += f"(?P<{part}>[^/]+?)"
            seen.add(part)
    return regex

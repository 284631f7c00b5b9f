"""The manifest of a folder of images: read it, check it row by row, or propose one from file names.

`manifest.csv` lies beside the images. Paths in it are relative to the folder.

    image,identity,condition,emotion,intensity,prompt,bust_mask,face_mask
    a1.jpg,anna,semi_nude,happy,,a photo of a happy woman,masks/a1_bust.png,masks/a1_face.png
    a2.jpg,anna,clothed,happy,,a photo of a happy woman,masks/a2_bust.png,masks/a2_face.png
    other.jpg,,,,,,,

A row with neither identity nor condition is a *corpus* image: it may only be used to train SAEs.
`intensity` and `prompt` may be left out. All faults of all rows are collected before anything is written.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from PIL import Image, ImageOps

from stages.core.ingestion.prefetch import ordered_map
from stages.core.run.errors import StudyError
from stages.core.run.labels import CONDITIONS, REGIONS

MANIFEST_FNAME = "manifest.csv"
REQUIRED = ("image", "identity", "condition", "emotion", "bust_mask", "face_mask")
OPTIONAL = ("intensity", "prompt")
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")  # not all that Pillow reads: it runs EPS files as programs
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
MAX_ASPECT = 20  # longer side / shorter side; the crop keeps a twentieth, and the resized strip is 20 times as long
MAX_ANY = 2  # {any} per pattern; with many, a long file name can be split in more ways than can be tried
ROW_OF_FIRST_IMAGE = 2  # spreadsheets count the header as row 1

Image.MAX_IMAGE_PIXELS = None  # `ingest.max_megapixels` sets the limit


class ManifestError(StudyError):
    """The folder cannot be used. The message lists every fault found, each with its file and row."""


@dataclass(frozen=True)
class Limits:
    """What a manifest may contain.

    emotions: the emotions that a row may name.
    max_pixels: largest number of pixels of an image or mask.
    """

    emotions: tuple[str, ...]
    max_pixels: float


@dataclass
class Faults:
    """Collects all faults of a manifest, so that one run reports them together.

    fpath: the manifest.
    lines: a message per fault.
    """

    fpath: Path
    lines: list[str] = field(default_factory=list)

    def add(self, row: int, what: str) -> None:
        """Add a fault of one row.

        row: number of the row, from 0 for the first image. The message counts rows as spreadsheets do.
        what: what is wrong and what to do.
        """
        self.lines.append(f"{self.fpath}, row {row + ROW_OF_FIRST_IMAGE}: {what}")

    def stop_if_any(self) -> None:
        """Raise ManifestError with all faults, one per line, if there are any."""
        if self.lines:
            raise ManifestError("\n".join([f"{len(self.lines)} fault(s); nothing was written", *self.lines]))


def read(folder: Path, limits: Limits) -> pd.DataFrame:
    """Read `manifest.csv` in `folder`, and check all its rows and all files that they name.

    limits: the emotions that a row may name, and the largest size of a file in pixels.
    Returns a row per image with text in every cell: image, identity, condition, emotion, bust_mask, face_mask,
    intensity and prompt, and any further columns of the file. An empty cell is "". If the file lacks intensity or
    prompt, that column is "" throughout.

    Raises ManifestError if the file is missing, is no CSV table, or lacks a column.
    Raises ManifestError too if rows have faults, and names every such row. Faults of labels: an unknown label, a
    duplicate image, a semi-nude image without its clothed twin or the reverse. Faults of files: an image or mask that
    is missing, unreadable, too large or outside the folder; a mask that is empty or does not fit its image.
    """
    fpath = folder / MANIFEST_FNAME
    table = _read_csv(fpath)
    faults = Faults(fpath)
    _check_labels(table, limits, faults)
    _check_files(folder, table, limits, faults)
    _check_pairs(table, faults)
    faults.stop_if_any()
    return table


def is_corpus(table: pd.DataFrame) -> pd.Series:
    """Tell for each row of a manifest whether it is a corpus image, which may only be used to train SAEs.

    table: needs the columns identity (the woman) and condition (semi_nude or clothed). Empty cells are "".
    Returns a Boolean per row: True if the row names neither a woman nor a condition.
    """
    return (table["identity"] == "") & (table["condition"] == "")


def _read_csv(fpath: Path) -> pd.DataFrame:
    if not fpath.is_file():
        raise ManifestError(
            f"{fpath} not found. Write one (columns {', '.join(REQUIRED)}), or scaffold it from your file names: "
            "python -m stages.ingest --scaffold '{identity}_{emotion}_{condition}.jpg'"
        )
    try:
        table = pd.read_csv(fpath, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ManifestError(f"{fpath} is not a UTF-8 CSV file: {error}") from None
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise ManifestError(f"{fpath}: column(s) {', '.join(missing)} missing; found {', '.join(table.columns)}")
    if table.empty:
        raise ManifestError(f"{fpath}: no rows")
    if not isinstance(table.index, pd.RangeIndex):  # pandas took the first fields as row names
        raise ManifestError(f"{fpath}: rows have more fields than the header; put text with commas in quotes")
    for name in OPTIONAL:
        if name not in table.columns:
            table[name] = ""
    return table.apply(lambda column: column.str.strip())


def _check_labels(table: pd.DataFrame, limits: Limits, faults: Faults) -> None:
    corpus = is_corpus(table)
    for row, (_, r) in enumerate(table.iterrows()):
        if corpus.iloc[row]:
            continue
        if not r["identity"]:
            faults.add(row, "identity is empty but condition is not; fill both, or neither for a corpus image")
        if r["condition"] not in CONDITIONS:
            faults.add(row, f"unknown condition {r['condition']!r}; use {' or '.join(CONDITIONS)}")
        if r["emotion"] not in limits.emotions:
            allowed = ", ".join(limits.emotions)
            faults.add(row, f"unknown emotion {r['emotion']!r}; ingest.emotions in params.yaml lists {allowed}")


def _check_files(folder: Path, table: pd.DataFrame, limits: Limits, faults: Faults) -> None:
    names, corpus = table["image"].tolist(), is_corpus(table).to_numpy()
    first_use: dict[str, int] = {}
    for row, name in enumerate(names):
        first_use.setdefault(name, row)
    first_content: dict[str, int] = {}
    masks = {region: table[f"{region}_mask"].tolist() for region in REGIONS}

    def check(row: int) -> tuple[list[str], str | None]:
        """Faults of a row's files, and the hash of its image; None if the image cannot be read."""
        own = Faults(faults.fpath)
        size = _check_image(folder, names[row], row, limits, own)
        if size is None:
            return own.lines, None
        if not corpus[row]:
            for region in REGIONS:
                _check_mask(folder, masks[region][row], region, size, row, limits, own)
        return own.lines, hashlib.sha256((folder / names[row]).read_bytes()).hexdigest()

    checked = ordered_map(check, first_use.values())
    for row, name in enumerate(names):
        if first_use[name] < row:
            faults.add(row, f"image {name!r} stands in row {first_use[name] + ROW_OF_FIRST_IMAGE} already")
            continue
        lines, content = next(checked)
        faults.lines += lines
        if content is None:
            continue
        if content in first_content:
            faults.add(row, f"image {name!r} is the same picture as row {first_content[content] + ROW_OF_FIRST_IMAGE}")
        first_content.setdefault(content, row)


def _resolve(folder: Path, name: str, what: str, row: int, faults: Faults) -> Path | None:
    if not name:
        faults.add(row, f"{what} is empty")
        return None
    path = folder / name
    try:
        inside, found = path.resolve().is_relative_to(folder.resolve()), path.is_file()
    except (OSError, ValueError, RuntimeError):  # a name too long, a null character, a link to itself
        inside, found = True, False
    if not inside:
        faults.add(row, f"{what} {name!r} leads out of {folder}; keep all files inside it")
        return None
    if not found:
        faults.add(row, f"{what} {name!r} not found in {folder}")
        return None
    return path


def _check_image(folder: Path, name: str, row: int, limits: Limits, faults: Faults) -> tuple[int, int] | None:
    path = _resolve(folder, name, "image", row, faults)
    if path is None:
        return None
    try:
        return open_image(path, limits.max_pixels).size
    except ValueError as error:
        faults.add(row, f"image {name!r} {error}")
        return None


def _check_mask(
    folder: Path, name: str, region: str, size: tuple[int, int], row: int, limits: Limits, faults: Faults
) -> None:
    path = _resolve(folder, name, f"{region}_mask", row, faults)
    if path is None:
        return
    try:
        mask = open_mask(path, limits.max_pixels)
    except ValueError as error:
        faults.add(row, f"{region}_mask {name!r} {error}")
        return
    if mask.size != size:
        found, wanted = "x".join(map(str, mask.size)), "x".join(map(str, size))
        faults.add(row, f"{region}_mask {name!r} is {found} pixels, its image {wanted}; draw it on the image itself")
    elif mask.getbbox() is None:
        faults.add(row, f"{region}_mask {name!r} is empty; paint the {region} white on black")
    elif share_lost(mask) == 1:
        faults.add(row, f"{region}_mask {name!r} lies outside the centre square that CLIP sees; crop the image to it")


def _check_pairs(table: pd.DataFrame, faults: Faults) -> None:
    key = ["identity", "emotion", "intensity"]
    audit = table[~is_corpus(table)]
    if audit.empty:
        faults.lines.append(f"{faults.fpath}: only corpus rows; add pairs with identity and condition")
    for (identity, emotion, intensity), group in audit.groupby(key, sort=False):
        found = sorted(group["condition"])
        if found != sorted(CONDITIONS) and set(found) <= set(CONDITIONS):
            label = f"{identity}, {emotion}" + (f", {intensity}" if intensity else "")
            faults.add(int(group.index[0]), f"unpaired: {label} has {' and '.join(found)}, not one of each condition")


def open_image(path: Path, max_pixels: float) -> Image.Image:
    """Open an image file upright (by its EXIF orientation), as RGB.

    max_pixels: largest number of pixels that the file may have.
    Raises ValueError if the file is unreadable, too large or a narrow strip. Raises ValueError too if the file holds
    several pictures, or if its pixel format is not supported. The message says what is wrong and what to do, but does
    not name the file.
    """
    return _upright(path, max_pixels).convert("RGB")


def open_mask(path: Path, max_pixels: float) -> Image.Image:
    """Open a mask file upright, as an 8-bit grey image: 255 (white) inside the region, 0 (black) outside.

    Transparent parts are laid on black. A pixel is then white if its brightness is at least half.
    max_pixels: largest number of pixels that the file may have.
    Raises ValueError if the file is unreadable, too large, a narrow strip, holds several pictures, or has a pixel
    format that is not supported.
    """
    mask = _upright(path, max_pixels)
    if mask.has_transparency_data:
        mask = Image.alpha_composite(Image.new("RGBA", mask.size, "black"), mask.convert("RGBA"))
    return mask.convert("L").point(lambda value: 255 if value >= 128 else 0)


def _upright(path: Path, max_pixels: float) -> Image.Image:
    with _opened(path) as image:
        _check_size(image, max_pixels)
        try:
            n_pictures = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a photograph and previews
            image.load()
            upright = ImageOps.exif_transpose(image)
        except Exception:  # Pillow's decoders raise many kinds
            raise ValueError("is damaged or cut short; save it again as PNG or JPEG") from None
    if n_pictures > 1:
        raise ValueError(f"holds {n_pictures} pictures; save the one that is meant as PNG or JPEG")
    return _eight_bits(upright)


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=FORMATS)
    except Exception:  # as above
        raise ValueError("cannot be read; save it again as PNG or JPEG") from None


def _check_size(image: Image.Image, max_pixels: float) -> None:
    if image.width * image.height > max_pixels:
        raise ValueError(
            f"has more than {max_pixels / 1e6:g} megapixels; scale it down, or raise ingest.max_megapixels"
        )
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise ValueError(f"is {image.width}x{image.height} pixels, a strip; crop it towards a square")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Keep the upper eight of sixteen bits. Pillow's own conversion makes all values above 255 white."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode not in MODES:
        raise ValueError(f"has pixels of Pillow's mode {image.mode}; save it again as 8-bit PNG or JPEG")
    return image


def square(image: Image.Image, size: int, resample: Image.Resampling) -> UInt8[np.ndarray, "size size *rgb"]:
    """Resize the shorter side to `size` pixels, then crop the centre square, as CLIP's own preprocessing does.

    resample: Pillow's filter for the resizing.
    Returns uint8 pixels, of shape [size, size, 3] for an RGB image and [size, size] for a mask.
    """
    scale = size / min(image.size)
    resized = image.resize((max(size, round(image.width * scale)), max(size, round(image.height * scale))), resample)
    left, top = (resized.width - size) // 2, (resized.height - size) // 2
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def share_lost(mask: Image.Image) -> float:
    """Compute the share of a region's area, 0 to 1, that CLIP does not see. CLIP sees the centre square of an image.

    mask: grey image of the size of the whole image, white inside the region. At least one pixel must be white.
    """
    side = min(mask.size)
    left, top = (mask.width - side) // 2, (mask.height - side) // 2
    inside = np.asarray(mask)[top : top + side, left : left + side].sum(dtype=np.float64)
    return 1.0 - inside / np.asarray(mask).sum(dtype=np.float64)


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

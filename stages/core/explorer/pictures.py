"""The pictures that the explorer shows: the twins of a pair, or a picture of the user's own, at the SAE's splice.

The splice is the place after the block that the SAE reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from stages.core.explorer.requests import RequestError
from stages.core.figures import CONDITION_LABELS
from stages.core.ingestion import contents, image_files
from stages.core.latents.spliced_clip import SplicedClip
from stages.core.paired import Pairs
from stages.core.run.labels import CONDITIONS

MAX_BYTES = 20 * 2**20  # of an uploaded file
N_KEPT = 8  # uploaded pictures in memory; the oldest is forgotten first
STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # the first bytes of PNG and JPEG files


@dataclass(frozen=True)
class Pictures:
    """Pictures that are shown side by side: the two twins of a pair, or one picture alone."""

    names: tuple[str, ...]
    """What the page calls each picture."""
    rows: Int[np.ndarray, " row"]
    """Row number of each picture in the data set's table. An uploaded picture has none."""
    pixels: UInt8[np.ndarray, "n s s 3"]
    tokens: Float[Tensor, "n token d_in"]
    """The residual stream of each picture at the splice, class token first."""
    truth: int | None
    """Index of the true emotion among the emotions of the data set. None for an uploaded picture."""


def of_pair(spliced: SplicedClip, pair: int) -> Pictures:
    """Return the twins of a pair, the semi-nude picture first. Their tokens come from the activation store.

    pair: number of the pair in the data set's table. Raises RequestError if there is no such pair.
    """
    pairs = Pairs.from_images(spliced.data.table).table.set_index("pair")
    if pair not in pairs.index:
        raise RequestError(f"pair {pair} does not exist")
    rows = np.array([pairs.at[pair, condition] for condition in CONDITIONS])
    return Pictures(
        names=tuple(CONDITION_LABELS[condition] for condition in CONDITIONS),
        rows=rows,
        pixels=spliced.data.images(rows),
        tokens=spliced.audit.tokens(rows),
        truth=int(spliced.data.emotion_index(rows)[0]),
    )


@torch.no_grad()
def of_upload(spliced: SplicedClip, pixels: UInt8[np.ndarray, "s s 3"]) -> Pictures:
    """Return a picture of the user's own. Its tokens are computed from its pixels.

    pixels: the picture as CLIP sees it (`from_file`).
    """
    return Pictures(
        names=("your picture",),
        rows=np.array([], dtype=int),
        pixels=pixels[None],
        tokens=spliced.clip.head(spliced.clip.pixels(pixels[None]), spliced.layer),
        truth=None,
    )


def from_file(content: bytes, size: int, max_pixels: float) -> UInt8[np.ndarray, "size size 3"]:
    """Read a picture from the content of a PNG or JPEG file, with the checks of the stage `ingest`, and crop it.

    content: the bytes of the file. size: side of the square that CLIP sees, in pixels.
    max_pixels: largest number of pixels that the file may have.
    Raises RequestError if the file is too large, of another format, damaged, transparent, a strip, of one colour, or
    holds several pictures.
    """
    if len(content) > MAX_BYTES:
        raise RequestError(f"the picture has more than {MAX_BYTES // 2**20} MiB; scale it down")
    if not content.startswith(STARTS):
        raise RequestError("the picture is neither a PNG nor a JPEG file; save it as one of the two")
    try:
        whole = image_files.open_image(BytesIO(content), max_pixels)
    except ValueError as error:
        raise RequestError(f"the picture {error}") from None
    if contents.is_constant(whole):
        raise RequestError("the picture is of one colour throughout; there is no face in it")
    return image_files.square(whole, size, Image.Resampling.BICUBIC).copy()


def png(pixels: UInt8[np.ndarray, "s s 3"]) -> bytes:
    """Return a picture as the content of a PNG file."""
    written = BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


class Uploads:
    """The pictures that the user has uploaded, in memory only. The newest eight are kept."""

    def __init__(self) -> None:
        self._kept: dict[int, UInt8[np.ndarray, "s s 3"]] = {}
        self._next = 0

    def add(self, pixels: UInt8[np.ndarray, "s s 3"]) -> int:
        """Keep a picture. Returns its number, from 0."""
        number, self._next = self._next, self._next + 1
        self._kept[number] = pixels
        self._kept.pop(number - N_KEPT, None)
        return number

    def __getitem__(self, number: int) -> UInt8[np.ndarray, "s s 3"]:
        """Return the pixels of a picture. Raises RequestError if there is none with this number (any more)."""
        if number not in self._kept:
            raise RequestError(f"the uploaded picture {number} is no longer here; upload it again")
        return self._kept[number]

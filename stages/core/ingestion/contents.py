"""What pictures and masks hold, against what they are said to be: constant pictures, inverted or swapped masks."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

LEVELS = 8  # a picture whose colours stay within so many of 256 levels shows nothing
MOST_OF_IMAGE = 0.5  # share of the image; no bust is larger
INVERTED_CORNERS = 3  # corners of the image inside a mask; a region in a portrait has at most two
THUMBNAIL = 64  # side in pixels at which the masks of twins are compared


def is_constant(image: Image.Image) -> bool:
    """Tell whether an RGB picture is black, white or of one colour throughout, so that nothing can be seen in it."""
    darkest, brightest = np.reshape(image.getextrema(), (3, 2)).T
    return bool((brightest - darkest < LEVELS).all())


def is_transparent(image: Image.Image) -> bool:
    """Tell whether a picture has pixels that are transparent, in part or wholly."""
    return image.has_transparency_data and any(image.convert("RGBA").getchannel("A").histogram()[:255])


def mask_fault(grey: Image.Image, mask: Image.Image, region: str) -> str | None:
    """Find what is wrong with the content of a mask. Returns what is wrong and what to do, or None.

    grey: the mask as painted, 0 (black) to 255. mask: the same, white or black alone. region: bust or face.
    """
    levels = np.array(grey.histogram())
    inside = np.asarray(mask) > 0
    if not inside.any() or inside.all():
        between = np.flatnonzero(levels[1:-1]) + 1
        if len(between):
            return f"is grey (levels {between[0]} to {between[-1]} of 255); paint the {region} white (255) on black (0)"
        return f"is {'empty' if not inside.any() else 'white throughout'}; paint the {region} white on black"
    if (inside[0, 0], inside[0, -1], inside[-1, 0], inside[-1, -1]).count(True) >= INVERTED_CORNERS:
        return f"is white in the corners of the image, so it seems inverted; paint the {region} white on black"
    if region == "bust" and inside.mean() > MOST_OF_IMAGE:
        return f"covers {inside.mean():.0%} of the image; paint the bust alone, white on black"
    return None


def regions_fault(bust: Image.Image, face: Image.Image) -> str | None:
    """Find what is wrong with the two masks of an image together. Returns what is wrong and what to do, or None.

    bust, face: masks, white or black, of the same size, each with a white pixel.
    """
    if np.array_equal(np.asarray(bust), np.asarray(face)):
        return "bust_mask and face_mask mark the same region; draw a mask for each"
    if _centre(bust) < _rows(face)[0]:
        return "the bust lies above the face; if the masks are swapped, swap bust_mask and face_mask"
    return None


def regions_warning(bust: Image.Image, face: Image.Image) -> str | None:
    """Find what is unusual about the two masks of an image together. Takes and returns as `regions_fault`."""
    if _rows(face)[0] <= _centre(bust) < _centre(face):
        return "the centre of the bust is above that of the face; check the masks, unless she is lying or bending"
    return None


def thumbnail(inside: UInt8[np.ndarray, "side side"]) -> UInt8[np.ndarray, " bytes"]:
    """Pack a square mask into bits, to compare it with the mask of the twin. A pixel counts if any part is inside."""
    return np.packbits(inside > 0)


def overlap(a: UInt8[np.ndarray, " bytes"], b: UInt8[np.ndarray, " bytes"]) -> bool:
    """Tell whether two masks have a point in common. a, b: results of `thumbnail`."""
    return bool((a & b).any())


def _rows(mask: Image.Image) -> Int[np.ndarray, " rows"]:
    """Rows with a pixel inside."""
    return np.flatnonzero(np.asarray(mask).any(axis=1))


def _centre(mask: Image.Image) -> float:
    """Mean row of the pixels inside."""
    weights = (np.asarray(mask) > 0).sum(axis=1)
    return float(weights @ np.arange(len(weights)) / weights.sum())

"""Deletion and insertion (Petsiuk et al. 2018): does the readout use the patches that a map marks?

Patches are ranked by the map. Deletion greys them out, the most relevant first. Insertion starts from a grey image and
shows them in the same order. With a faithful map the readout falls early in deletion and rises early in insertion. Both
scores are areas under the readout over the share of patches, so they have the unit of the readout. Both may be limited
to a region: then only its patches are ranked. Deletion then hides nothing outside the region.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from stages.core.run.labels import GREY

Kind = Literal["deletion", "insertion"]
KINDS: tuple[Kind, ...] = ("deletion", "insertion")


def most_relevant(
    heat: Float[np.ndarray, "n gh gw"], share: float, among: Bool[np.ndarray, "n gh gw"] | None = None
) -> Bool[np.ndarray, "n gh gw"]:
    """Mark, in each image, the patches with the largest values of the map.

    If two values are equal, the patch that comes first in reading order is marked first. An image has gh rows of gw
    patches. n is the number of images.

    heat: for each image, the value of each patch in the map.
    share: share of the patches to mark, between 0 and 1. The number of patches is rounded.
    among: True for the patches that may be marked. `share` is then a share of these patches. If not given, all patches
        may be marked.
    Returns an array like `heat`: True for each marked patch, else False.
    """
    among = np.ones(heat.shape, dtype=bool) if among is None else among
    ranked = np.where(among, heat, -np.inf).reshape(len(heat), -1)
    place = np.argsort(np.argsort(-ranked, axis=1, kind="stable"), axis=1)
    count = np.round(share * among.sum(axis=(1, 2)))
    return (place < count[:, None]).reshape(heat.shape)


def perturbed(
    images: UInt8[np.ndarray, "n s s 3"],
    heat: Float[np.ndarray, "n gh gw"],
    share: float,
    kind: Kind,
    among: Bool[np.ndarray, "n gh gw"] | None = None,
) -> UInt8[np.ndarray, "n s s 3"]:
    """Grey out the most relevant patches (`deletion`), or all patches except these (`insertion`).

    An image has gh rows of gw patches. n is the number of images, s their side in pixels.

    images: square RGB images.
    heat: for each image, the value of each patch in the map. The largest values are the most relevant.
    share: share of the patches that count as most relevant, between 0 and 1.
    kind: `deletion` or `insertion`.
    among: True for the patches that can be most relevant, such as those of one region. `share` is then a share of these
        patches. Other patches are never greyed out in deletion, and always in insertion. If not given, all can be.
    Returns the changed images.
    """
    patch = images.shape[1] // heat.shape[1]
    chosen = most_relevant(heat, share, among).repeat(patch, axis=1).repeat(patch, axis=2)
    hidden = chosen if kind == "deletion" else ~chosen
    return np.where(hidden[..., None], np.uint8(GREY), images)


def area(readout: Float[np.ndarray, "share n"], shares: Sequence[float] | np.ndarray) -> Float[np.ndarray, " n"]:
    """Compute the area under the readout over the share of patches, for each image, by trapezoids.

    readout: the emotion readout of the model, when a share of the patches is greyed out (deletion) or shown
        (insertion). It has a row for each of `shares`, and a column per image.
    shares: the shares of the patches, ascending from 0 to 1.
    Returns one area per image, in the unit of the readout.
    """
    return np.trapezoid(readout, shares, axis=0)

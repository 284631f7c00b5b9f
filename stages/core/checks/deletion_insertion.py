"""Deletion and insertion (Petsiuk et al. 2018): is what a map marks what the readout uses?

Patches are ranked by the map. Deletion greys them out, the most relevant first; insertion starts from a grey image and
shows them in that order. A faithful map makes the readout fall early, and rise early. Both are areas under the
readout over the share of patches, so the unit is the readout's. Both may be limited to a region: then its patches alone
are ranked, and what is hidden is never more than the region.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

Kind = Literal["deletion", "insertion"]
GREY = 128  # pixel value of what is hidden
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)  # of patches: denser where a good map acts


def most_relevant(
    heat: Float[np.ndarray, "n gh gw"], share: float, among: Bool[np.ndarray, "n gh gw"] | None = None
) -> Bool[np.ndarray, "n gh gw"]:
    """The given share of patches (of those `among`) with the largest values, ties in reading order."""
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
    """Images with the most relevant share of patches greyed out (`deletion`), or with no others left (`insertion`)."""
    patch = images.shape[1] // heat.shape[1]
    chosen = most_relevant(heat, share, among).repeat(patch, axis=1).repeat(patch, axis=2)
    hidden = chosen if kind == "deletion" else ~chosen
    return np.where(hidden[..., None], np.uint8(GREY), images)


def area(readout: Float[np.ndarray, "share n"]) -> Float[np.ndarray, " n"]:
    """Area under each readout over SHARES (trapezoids)."""
    return np.trapezoid(readout, SHARES, axis=0)

"""Deletion and insertion (Petsiuk et al. 2018): is what a map marks what the readout uses?

Patches are ranked by the map. Deletion greys them out, the most relevant first; insertion starts from a grey image and
shows them in that order. A faithful map makes the readout fall early, and rise early. Both are areas under the
readout over the share of patches, so the unit is the readout's.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

Kind = Literal["deletion", "insertion"]
GREY = 128  # pixel value of what is hidden
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)  # of patches: denser where a good map acts


def most_relevant(heat: Float[np.ndarray, "n gh gw"], share: float) -> Bool[np.ndarray, "n gh gw"]:
    """The given share of patches with the largest values, ties in reading order."""
    flat = heat.reshape(len(heat), -1)
    count = round(share * flat.shape[1])
    chosen = np.zeros(flat.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-flat, axis=1, kind="stable")[:, :count], True, axis=1)
    return chosen.reshape(heat.shape)


def perturbed(
    images: UInt8[np.ndarray, "n s s 3"],
    heat: Float[np.ndarray, "n gh gw"],
    share: float,
    kind: Kind,
) -> UInt8[np.ndarray, "n s s 3"]:
    """Images with the most relevant share of patches greyed out (`deletion`), or with no others left (`insertion`)."""
    patch = images.shape[1] // heat.shape[1]
    chosen = most_relevant(heat, share).repeat(patch, axis=1).repeat(patch, axis=2)
    hidden = chosen if kind == "deletion" else ~chosen
    return np.where(hidden[..., None], np.uint8(GREY), images)


def area(readout: np.ndarray) -> np.ndarray:
    """Area under the readout [share, ...] over SHARES, of each curve [...] (trapezoids)."""
    return np.trapezoid(readout, SHARES, axis=0)

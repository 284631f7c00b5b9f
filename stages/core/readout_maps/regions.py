"""Scores of signed maps: what a region adds to R, its share of the harm, and the same for a control region.

A map has a value per patch, nats. Harm is what lowers R: the negative values. Coverage is the share of each patch's
area inside a region, 0 to 1. A patch that lies in a region in part counts in part.
"""

from __future__ import annotations

import numpy as np
import scipy
from jaxtyping import Bool, Float

from stages.core.data.dataset import Dataset, patch_means
from stages.core.run.labels import REGIONS

Grids = Float[np.ndarray, "n gh gw"]
TOUCHING = 1e-6  # pixels of overlap from which two masks touch; below the least share of a mask's pixel, squared


def region_sum(maps: Grids, coverage: Grids) -> Float[np.ndarray, " n"]:
    """Compute what a region adds to R: the sum of each map in the region, nats. Below 0, the region lowers R."""
    return (maps.astype(np.float64) * coverage).sum((1, 2))


def harm_share(maps: Grids, coverage: Grids) -> Float[np.ndarray, " n"]:
    """Compute the share of each map's harm that lies in a region, 0 to 1. Harm: the sum of the negative values.

    A map without harm scores chance: the region's share of the area.
    """
    harm = np.maximum(-maps.astype(np.float64), 0)
    total = harm.sum((1, 2))
    area = coverage.mean((1, 2), dtype=np.float64)
    inside = np.minimum((harm * coverage).sum((1, 2)), total)  # not above 1 by rounding
    return np.divide(inside, total, out=area, where=total > 0)


def shares(data: Dataset, region: str, rows: np.ndarray) -> Float[np.ndarray, "n s s"]:
    """Return the share of each pixel inside a region, 0 to 1, float32.

    data: the data set. region: bust or face. rows: row numbers of the images in the data set's table.
    """
    return data.mask(region, rows) / np.float32(255)


def find_places(data: Dataset, rows: np.ndarray, grid: tuple[int, int]) -> tuple[dict[str, Grids], dict[str, int]]:
    """Find bust and face of each image, and a control region for each: the same area elsewhere.

    data: the data set. rows: row numbers of the images in the data set's table.
    grid: number of patches down and across.
    Returns the coverage [image, gh, gw] of bust, bust_control, face and face_control, and the number of images in which
    the shape of bust or face fits elsewhere. In other images the control is the area alone, spread over the rest.
    """
    masks = {region: shares(data, region, rows).astype(np.float64) for region in REGIONS}
    avoided = np.maximum(*masks.values())
    found: dict[str, Grids] = {}
    n_fitting: dict[str, int] = {}
    for region, mask in masks.items():
        control, fits = control_masks(mask, avoided)
        found |= {region: patch_means(mask, grid), f"{region}_control": patch_means(control, grid)}
        n_fitting[f"{region}_shape_fits_elsewhere"] = int(fits.sum())
    return found, n_fitting


def control_masks(
    mask: Float[np.ndarray, "n s s"], avoided: Float[np.ndarray, "n s s"]
) -> tuple[Float[np.ndarray, "n s s"], Bool[np.ndarray, " n"]]:
    """Compute a control for a region of each image: the same area elsewhere, and the same shape if it fits.

    The mask and its mirror image are moved over the image, to all places where they touch nothing that is avoided. The
    control is the mean of these masks. The sum of a map in it is the mean of the sums at all places. If there is no
    such place, the region's area is spread evenly over all that is not avoided.

    mask: share of each pixel inside the region. avoided: share of each pixel inside any region, this one included.
    Returns the controls, and whether the shape fits. A control has the area of its region, or all that is not avoided
    if this is less.
    """
    found = [_control(region, taken) for region, taken in zip(mask, avoided, strict=True)]
    return np.stack([control for control, _ in found]), np.array([fits for _, fits in found])


def _control(mask: np.ndarray, avoided: np.ndarray) -> tuple[np.ndarray, bool]:
    free = 1 - avoided
    spread = free * min(1.0, mask.sum() / free.sum()) if free.sum() > 0 else free
    if not mask.any():
        return spread, False
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    moved, n_places = np.zeros_like(mask), 0
    for shape in (box, box[:, ::-1]):
        fits = scipy.signal.correlate(avoided, shape, "valid", "fft") < TOUCHING
        moved += scipy.signal.convolve(fits.astype(float), shape, "full", "fft")
        n_places += int(fits.sum())
    return (np.maximum(moved / n_places, 0), True) if n_places else (spread, False)  # no -1e-17 of the transform

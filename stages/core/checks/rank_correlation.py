"""Spearman's rank correlation of many pairs of rows at once, and of the maps of many images."""

from __future__ import annotations

import numpy as np
import scipy
from jaxtyping import Float, Real


def spearman(a: Real[np.ndarray, "n k"], b: Real[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    """Compute Spearman's rank correlation of each row of `a` with the same row of `b`.

    Equal values in a row get the mean of their ranks.
    Returns one correlation per row, NaN if the row of `a` or of `b` is constant.
    """
    ranks = [scipy.stats.rankdata(values, axis=1) for values in (a, b)]
    centred = [r - r.mean(1, keepdims=True) for r in ranks]
    norms = np.linalg.norm(centred[0], axis=1) * np.linalg.norm(centred[1], axis=1)
    products = (centred[0] * centred[1]).sum(1)
    return np.divide(products, norms, out=np.full(len(norms), np.nan), where=norms > 0)


def agreement(a: Real[np.ndarray, "n gh gw"], b: Real[np.ndarray, "n gh gw"]) -> float:
    """Compute how well two sets of maps of the same images agree.

    a, b: maps of n images, each with gh rows and gw columns of patches.
    Returns the mean over images of Spearman's correlation. The correlation of an image is computed over its patches. It
    counts as 0 if a map of this image is constant.
    """
    flat = (maps.reshape(len(maps), -1) for maps in (a, b))
    return float(np.nan_to_num(spearman(*flat)).mean())

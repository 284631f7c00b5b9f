"""Spearman's rank correlation of many pairs of rows at once."""

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

"""Women as the clusters of pairs: sums over the pairs of each woman, and means with their standard errors."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from stages.core.run.errors import StudyError

CHUNK_VALUES = 2**24  # resampled results held at once, as a count of float64 values
ROUNDING = 1e-12  # a difference below this share of its terms is 0 but for rounding


class TooFewWomen(StudyError):
    """The pairs come from too few women for any inference. The message names the remedy."""


def by_cluster(values: Float[np.ndarray, "pair ..."], clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add up the values of each woman's pairs.

    values: the first axis is the pair; further axes are kept.
    clusters: the woman of each pair.
    Returns two arrays whose first axis is the woman: the sums, and the number of pairs. Women are in sorted order.
    """
    _, index = np.unique(clusters, return_inverse=True)
    counts = np.bincount(index)
    sums = np.zeros((len(counts), *values.shape[1:]))
    np.add.at(sums, index, values)
    return sums, counts


def residuals(sums: Float[np.ndarray, "woman k"], counts: np.ndarray) -> Float[np.ndarray, "woman k"]:
    """Compute how far each woman's sum is from what the mean over all pairs predicts: sum - count * mean.

    sums, counts: sums over each woman's pairs, and numbers of pairs (`by_cluster`).
    Differences that only rounding makes are 0.
    """
    found = sums - np.outer(counts, sums.sum(0) / counts.sum())
    return np.where(np.abs(found) <= ROUNDING * np.abs(sums), 0.0, found)


def means_and_errors(sums: Float[np.ndarray, "woman k"], counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean over all pairs, and its cluster-robust standard error, which treats women as the clusters.

    sums, counts: sums over each woman's pairs, and numbers of pairs (`by_cluster`).
    Returns two arrays with one value per column. One woman alone has a standard error of 0.
    """
    squares = np.square(residuals(sums, counts)).sum(0) * len(counts) / max(len(counts) - 1, 1)
    return sums.sum(0) / counts.sum(), np.sqrt(squares) / counts.sum()

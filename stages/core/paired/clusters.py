"""Women as the clusters of pairs: sums over the pairs of each woman."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from stages.core.run.errors import StudyError

CHUNK_VALUES = 2**24  # resampled results held at once, as a count of float64 values


class TooFewWomen(StudyError):
    """The pairs come from too few women for any inference. The message names the remedy."""


def by_cluster(values: Float[np.ndarray, "pair ..."], clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add up the values of each woman's pairs.

    values: first axis pairs, any further axes.
    clusters: the woman of each pair.
    Returns the sums, with one entry per woman on the first axis, and the number of pairs of each woman. Women are in
    sorted order.
    """
    _, index = np.unique(clusters, return_inverse=True)
    counts = np.bincount(index)
    sums = np.zeros((len(counts), *values.shape[1:]))
    np.add.at(sums, index, values)
    return sums, counts

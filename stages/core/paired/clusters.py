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

    values: the first axis is the pair; further axes are kept.
    clusters: the woman of each pair.
    Returns two arrays whose first axis is the woman: the sums, and the number of pairs. Women are in sorted order.
    """
    _, index = np.unique(clusters, return_inverse=True)
    counts = np.bincount(index)
    sums = np.zeros((len(counts), *values.shape[1:]))
    np.add.at(sums, index, values)
    return sums, counts

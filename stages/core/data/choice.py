"""Which of many images, pairs or women are taken, where not all are."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int


def evenly(n: int, n_wanted: int) -> Int[np.ndarray, " chosen"]:
    """Choose at most `n_wanted` of n things, evenly spread from the first to the last.

    Returns their positions, 0 to n - 1, ascending. All are chosen if there are no more than wanted.
    """
    return np.unique(np.linspace(0, n - 1, min(n, n_wanted)).round().astype(int))

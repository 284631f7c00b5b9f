"""What latents encode: how much of their activation a label explains.

    eta^2 = sum over groups of n_group (mean_group - mean)^2 / sum over images of (value - mean)^2

One-way analysis of variance, descriptive; 0 means that the label tells nothing, 1 that it tells all.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from stages.core.codes import POOLINGS, Codes
from stages.core.dataset import SEMI_NUDE

LEAST = 0.1  # of a latent's variance: with less explained by every label, it encodes none of them


def variance_explained(values: Float[np.ndarray, "n k"], labels: np.ndarray) -> Float[np.ndarray, " k"]:
    """eta^2 of each column; 0 for a column that is constant."""
    _, group = np.unique(labels, return_inverse=True)
    counts = np.bincount(group)
    centred = values - values.mean(0)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, group, centred)
    total = np.square(centred).sum(0)
    between = (np.square(sums) / counts[:, None]).sum(0)
    return np.divide(between, total, out=np.zeros(len(total)), where=total > 0)


def encoded(codes: Codes, images: pd.DataFrame, latents: Int[np.ndarray, " k"]) -> pd.DataFrame:
    """A row per latent: eta^2 of `condition`, `emotion` (the face) and, where images have one, `colour` (the top).

    images: the images of `codes`, in order. Condition is judged on all of them, the others on semi-nude ones; of
    the three poolings the one counts that a label explains best. `encodes` names the label that explains most, or
    `none` of them.
    """
    semi_nude = (images["condition"] == SEMI_NUDE).to_numpy()
    judged_on = {"condition": np.ones(len(images), bool), "emotion": semi_nude, "colour": semi_nude}
    shares = pd.DataFrame(
        {
            label: np.max(
                [
                    variance_explained(
                        getattr(codes, pooling)[rows][:, latents].astype(np.float64), images.loc[rows, label].to_numpy()
                    )
                    for pooling in POOLINGS
                ],
                axis=0,
            )
            for label, rows in judged_on.items()
            if label in images
        },
        index=latents,
    )
    best = shares.idxmax(axis=1) if len(shares) else pd.Series(dtype=str)
    return shares.assign(encodes=best.where(shares.max(axis=1) >= LEAST, "none"))

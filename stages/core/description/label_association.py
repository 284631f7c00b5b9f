"""What latents encode: how much of their activation a label explains, and how similar their images are.

    eta^2 = sum over groups of n_group (mean_group - mean)^2 / sum over images of (value - mean)^2

This is a one-way analysis of variance, used as description. 0 means that the label explains nothing, 1 that it
explains everything.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from stages.core.latents.pooling import POOLINGS, PooledLatents
from stages.core.run.labels import PLANTED, SEMI_NUDE

LEAST = 0.1  # share of a latent's variance; if every label explains less, the latent encodes none of them


def variance_explained(values: Float[np.ndarray, "n k"], labels: np.ndarray) -> Float[np.ndarray, " k"]:
    """Compute the share of each latent's variance over images that a label explains: eta^2, from 0 to 1.

    The images with the same label form a group. eta^2 is the sum of squares between the groups divided by the total sum
    of squares.

    values: activations, with a row per image and a column per latent.
    labels: the label of each image.
    Returns one share per column; 0 for a constant column.
    """
    _, group = np.unique(labels, return_inverse=True)
    counts = np.bincount(group)
    centred = values - values.mean(0)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, group, centred)
    total = np.square(centred).sum(0)
    between = (np.square(sums) / counts[:, None]).sum(0)
    return np.divide(between, total, out=np.zeros(len(total)), where=total > 0)


def encoded(pooled: PooledLatents, images: pd.DataFrame, latents: Int[np.ndarray, " k"]) -> pd.DataFrame:
    """Find out which label each latent encodes: the label that explains most of the variance of its activation.

    pooled: activation of each latent on each image, pooled over tokens in three ways: on the class token, mean over
        patches, and maximum over patches.
    images: labels of the images of `pooled`, in the same order. Columns: condition, emotion and, if the images have
        it, colour.
    latents: indices of the latents to describe.
    Returns a row per latent; the index is the latent. Columns:
        condition    share explained by the condition (clothed or semi-nude), over all images
        emotion      share explained by the emotion of the face, over semi-nude images
        colour       share explained by the colour of the top, over semi-nude images; absent without this label
        encodes      the label with the largest share; `none` if each share is below 0.1 (LEAST)
    A share is eta^2, from 0 to 1: the largest of the three shares for the three poolings.
    """
    semi_nude = (images["condition"] == SEMI_NUDE).to_numpy()
    judged_on = {"condition": np.ones(len(images), bool), "emotion": semi_nude, PLANTED: semi_nude}
    shares = pd.DataFrame(
        {
            label: np.max(
                [
                    variance_explained(
                        getattr(pooled, pooling)[rows][:, latents].astype(np.float64),
                        images.loc[rows, label].to_numpy(),
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


def detectors(
    pooled: PooledLatents, images: pd.DataFrame, label: str, ranked: Int[np.ndarray, " latent"]
) -> pd.DataFrame:
    """Find, for each value of a label, the latent that best tells whether a semi-nude image has this value.

    pooled: activation of each latent on each image, pooled over tokens in three ways: on the class token, mean over
        patches, and maximum over patches.
    images: labels of the images of `pooled`, in the same order. Columns: condition, and the column named by `label`.
    label: name of the column with the label, such as colour.
    ranked: indices of all latents, in the order of some ranking.
    Returns a row per value of the label. Columns:
        (name of the label)    the value
        latent                 index of the best latent: the latent with the largest eta2
        eta2                   share of the latent's variance over semi-nude images that is explained by whether an
                               image has the value; the largest of the three poolings
        rank                   place of this latent in `ranked`, from 1
    """
    semi_nude = (images["condition"] == SEMI_NUDE).to_numpy()
    values = [getattr(pooled, pooling)[semi_nude].astype(np.float64) for pooling in POOLINGS]
    rank = np.empty(len(ranked), dtype=np.int64)
    rank[ranked] = np.arange(1, len(ranked) + 1)
    rows = []
    for value in sorted(set(images[label])):
        given = (images.loc[semi_nude, label] == value).to_numpy()
        explained = np.max([variance_explained(part, given) for part in values], axis=0)
        latent = int(explained.argmax())
        rows.append((value, latent, float(explained[latent]), int(rank[latent])))
    return pd.DataFrame(rows, columns=[label, "latent", "eta2", "rank"])


def monosemanticity(
    values: Float[np.ndarray, "n k"], embeddings: Float[np.ndarray, "n embed"]
) -> Float[np.ndarray, " k"]:
    """Compute the mean cosine between different images, weighted by how strongly both activate the latent.

    This is the monosemanticity score MS (Pach et al. 2025):

        MS = sum_{i != j} a_i a_j cos_ij / sum_{i != j} a_i a_j,   a = value scaled to [0, 1] over the images

    values: activation of each latent on each image.
    embeddings: unit-norm image embeddings of the same images.
    Returns one score per latent. The chance level is the mean cosine of all pairs of images. A latent gets the chance
    level if fewer than two images have a > 0. A latent that all images activate equally gets it too.

    In the paper (arXiv 2504.02821) the image embeddings come from another model. The sums are computed without a loop
    over pairs: (|sum_i a_i e_i|^2 - sum_i a_i^2) / ((sum_i a_i)^2 - sum_i a_i^2), with e_i the embedding of image i.
    """
    low, high = values.min(0), values.max(0)
    a = np.divide(values - low, high - low, out=np.ones(values.shape, np.float64), where=high > low)
    squares = np.square(a).sum(0)
    pairs = np.square(a.sum(0)) - squares
    alike = np.square(a.T @ embeddings.astype(np.float64)).sum(1) - squares
    return np.divide(alike, pairs, out=np.full(len(pairs), mean_cosine(embeddings)), where=pairs > 1e-9 * squares)


def mean_cosine(embeddings: Float[np.ndarray, "n embed"]) -> float:
    """Compute the mean cosine of all pairs of different images: the chance level of `monosemanticity`.

    embeddings: unit-norm image embeddings of at least two images.
    """
    n = len(embeddings)
    return float((np.square(embeddings.sum(0, dtype=np.float64)).sum() - n) / (n * (n - 1)))

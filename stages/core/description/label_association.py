"""What latents encode: how much of their activation a label explains, and how similar their images are.

    epsilon^2 = 1 - (within / (n - k)) / (total / (n - 1))

Here n images have k different labels, `total` is the sum of (value - mean)^2, and `within` the sum of (value - mean of
the images with the same label)^2. 0 means that the label explains nothing, 1 that it explains everything (Kelley 1935,
PNAS 21:554). eta^2 = 1 - within / total is above 0 by chance: (k - 1) / (n - 1) on average. epsilon^2 is not.

A share may still be large by chance where images are few. So each label is tested by permutation, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from stages.core.latents.pooling import POOLINGS, PooledLatents
from stages.core.run.labels import PLANTED, SEMI_NUDE

LEAST = 0.1  # share of a latent's variance; if every label explains less, the latent encodes none of them
ERROR = 0.05  # largest probability that a latent which no label acts on is said to encode a label
N_PERMUTATIONS = 999  # the smallest p is .001; times five labels it is still far below ERROR
SEED = 0
NONE = "none"  # stands in place of a label
WITHIN = {
    "condition": ["pair"],
    "emotion": ["identity"],
    "intensity": ["identity", "emotion"],
    PLANTED: ["identity"],
    "identity": ["emotion"],
}
"""The labels that a latent may encode. Each is permuted among images that are alike in the columns named here."""


def judged_labels(images: pd.DataFrame) -> list[str]:
    """Return the labels of WITHIN that the images have: the column exists and is not empty throughout."""
    return [label for label in WITHIN if label in images and (images[label] != "").any()]


def judged_on(images: pd.DataFrame, label: str) -> Bool[np.ndarray, " n"]:
    """Mark the images on which a label is judged: all of them for the condition, the semi-nude ones for any other.

    Twins are alike in all other labels. So two images of a pair would count as two witnesses of one.
    """
    return np.full(len(images), label == "condition") | (images["condition"] == SEMI_NUDE).to_numpy()


def variance_explained(values: Float[np.ndarray, "n k"], labels: np.ndarray) -> Float[np.ndarray, " k"]:
    """Compute the share of each latent's variance over images that a label explains: epsilon^2, at most 1.

    values: activations, with a row per image and a column per latent.
    labels: the label of each image. Images with the same label form a group.
    Returns one share per column. Its mean is 0 for values that do not depend on the label, so it may be below 0. It is
    0 for a constant column, for a single label, and if no two images have the same label.
    """
    n, (_, group) = len(values), np.unique(labels, return_inverse=True)
    n_groups = int(group.max(initial=-1)) + 1
    if n == n_groups:
        return np.zeros(values.shape[1])
    scaled = standardised(values)
    within = 1 - _Groups(group).between(scaled)
    return np.where(scaled.any(0), 1 - within * (n - 1) / (n - n_groups), 0.0)


def standardised(values: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n ..."]:
    """Shift and scale each column so that its sum is 0 and its sum of squares is 1. A constant column becomes 0."""
    centred = np.where(np.ptp(values, axis=0) > 0, values - values.mean(0), 0.0)
    norm = np.sqrt(np.square(centred).sum(0))
    return np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)


class _Groups:
    """Images in groups. group: number of the group of each image; no number from 0 to the largest is left out."""

    def __init__(self, group: Int[np.ndarray, " n"]):
        self._order = np.argsort(group, kind="stable")
        self._counts = np.bincount(group)
        self._starts = np.cumsum(self._counts) - self._counts

    def between(self, values: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "..."]:
        """Sum of squares between the groups, of columns whose sum is 0."""
        sums = np.add.reduceat(values[self._order], self._starts, axis=0)
        return np.tensordot(1 / self._counts, np.square(sums), axes=1)


def permutations(strata: Int[np.ndarray, " n"]) -> Iterator[Int[np.ndarray, " n"]]:
    """Yield N_PERMUTATIONS random orders of n images. An image takes the place of an image of its own stratum."""
    rng = np.random.default_rng(SEED)
    home, order = np.argsort(strata, kind="stable"), np.empty(len(strata), dtype=np.int64)
    for _ in range(N_PERMUTATIONS):
        order[home] = np.lexsort((rng.random(len(strata)), strata))
        yield order


def permutation_p(
    values: Float[np.ndarray, "n pooling k"], labels: np.ndarray, strata: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " k"]:
    """Compute how often a label would explain as much of a latent's variance by chance.

    The statistic is the share explained, the largest of the poolings. It is compared with those of N_PERMUTATIONS
    permutations of the images within strata.

    values: activations by image, pooling and latent.
    labels: the label of each image.
    strata: number of the stratum of each image. Without an effect of the label, the images of a stratum are alike.
    Returns (1 + permutations with at least this share) / (1 + N_PERMUTATIONS) for each latent: 1 for a constant latent,
    and where no permutation changes a label.
    """
    groups, scaled = _Groups(np.unique(labels, return_inverse=True)[1]), standardised(values)
    least = groups.between(scaled).max(0) - 1e-9  # a tie counts, whatever the rounding
    as_large = sum((groups.between(scaled[order]).max(0) >= least).astype(int) for order in permutations(strata))
    return (1 + as_large) / (1 + N_PERMUTATIONS)


def encoded(pooled: PooledLatents, images: pd.DataFrame, latents: Int[np.ndarray, " k"]) -> pd.DataFrame:
    """Find out which label each latent encodes: the label that explains most of the variance of its activation.

    A label counts if it explains at least LEAST (.1), and if its p is at most ERROR (.05) divided by the number of
    labels. So a latent that no label acts on is said to encode a label with probability ERROR or less.

    pooled: activation of each latent on each image, pooled over tokens in three ways: on the class token, mean over
        patches, and maximum over patches.
    images: labels of the images of `pooled`, in the same order. Columns: pair, identity (the woman), condition, emotion
        and, if the images have them, intensity (of the expression) and colour (of the top).
    latents: indices of the latents to describe.
    Returns a row per latent; the index is the latent. Columns:
        condition    share explained by the condition (clothed or semi-nude), over all images
        emotion, intensity, colour, identity
                     share explained by each other label, over semi-nude images; absent without this label
        encodes      the label with the largest share among those that count; `none` if no label counts
        encodes_p    smallest p of a label, times the number of labels; at most 1
    A share is epsilon^2, at most 1, the largest for the three poolings. A p comes from permutations (`permutation_p`):
    the condition is permuted within pairs, emotion and colour within the images of a woman, intensity within the images
    of a woman with one emotion, the woman within the images with one emotion. Where such images cannot be permuted,
    such as the emotion of women with one semi-nude image each, the label is never encoded.
    """
    labels, shares, p = judged_labels(images), {}, {}
    for label in labels:
        on = judged_on(images, label)
        kept = images[on]
        values = np.stack([getattr(pooled, pooling)[on][:, latents] for pooling in POOLINGS], axis=1).astype(np.float64)
        given, strata = kept[label].to_numpy(), kept.groupby(WITHIN[label]).ngroup().to_numpy()
        shares[label] = np.max([variance_explained(values[:, i], given) for i in range(len(POOLINGS))], axis=0)
        p[label] = np.minimum(permutation_p(values, given, strata) * len(labels), 1)
    table, adjusted = pd.DataFrame(shares, index=latents), pd.DataFrame(p, index=latents)
    counts = (table >= LEAST) & (adjusted <= ERROR)
    best = table.where(counts, -np.inf).idxmax(axis=1) if len(table) else pd.Series(dtype=str)
    return table.assign(encodes=best.where(counts.any(axis=1), NONE), encodes_p=adjusted.min(axis=1))


def detectors(
    pooled: PooledLatents, images: pd.DataFrame, label: str, ranked: Int[np.ndarray, " latent"]
) -> pd.DataFrame:
    """Find, for each value of a label, the latent that best tells whether a semi-nude image has this value.

    The best of many latents has a share above 0 among pure noise, too. Nothing is tested here: the share describes the
    latent that was found, and overrates how well it would do on other images.

    pooled: activation of each latent on each image, pooled over tokens in three ways: on the class token, mean over
        patches, and maximum over patches.
    images: labels of the images of `pooled`, in the same order. Columns: condition, and the column named by `label`.
    label: name of the column with the label, such as colour.
    ranked: indices of all latents, in the order of some ranking.
    Returns a row per value of the label. Columns:
        (name of the label)    the value
        latent                 index of the best latent: the latent with the largest share
        share                  share of the latent's variance over semi-nude images that is explained by whether an
                               image has the value: epsilon^2, the largest of the three poolings
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
    return pd.DataFrame(rows, columns=[label, "latent", "share", "rank"])


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

"""Intervals by bootstrap over women: a resample draws women with replacement, and each woman brings all her pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from stages.core.paired.clusters import CHUNK_VALUES, by_cluster
from stages.core.schema import Inference


@dataclass(frozen=True)
class Interval:
    """An estimate, and the ends `low` and `high` of its two-sided bootstrap interval over women, in the same units."""

    estimate: float
    low: float
    high: float

    def as_metrics(self) -> dict[str, float]:
        """Return the interval as a dictionary for a metrics file, with keys estimate, low and high."""
        return {"estimate": self.estimate, "low": self.low, "high": self.high}


def bootstrap_settings(inference: Inference) -> dict[str, Any]:
    """Return the settings of a bootstrap interval, as keyword arguments for `interval` and `bootstrap_interval`.

    inference: the settings in params.yaml.
    Returns the keys n_bootstrap (number of resamples), confidence (level of the interval) and seed.
    """
    return {"n_bootstrap": inference.n_bootstrap, "confidence": inference.confidence, "seed": inference.seed}


def bootstrap_means(
    values: Float[np.ndarray, "pair k"], clusters: np.ndarray, n_bootstrap: int, seed: int
) -> Float[np.ndarray, "n_bootstrap k"]:
    """Resample women with replacement, and take the mean over all pairs of each resample.

    A woman in a resample brings all her pairs, as often as she was sampled.

    values: one row per pair, one column per quantity.
    clusters: the woman of each pair.
    Returns one row per resample, with the mean of each column.
    """
    sums, counts = by_cluster(values, clusters)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=n_bootstrap).astype(float)
    return (weights @ sums) / (weights @ counts)[:, None]


def interval(
    values: Float[np.ndarray, " pair"], clusters: np.ndarray, *, n_bootstrap: int, confidence: float, seed: int
) -> Interval:
    """Compute the mean over pairs, with its percentile bootstrap interval over women.

    values: one value per pair.
    clusters: the woman of each pair.
    n_bootstrap: number of resamples of women.
    confidence: level of the two-sided interval, between 0 and 1.
    """
    draws = bootstrap_means(values[:, None], clusters, n_bootstrap, seed)[:, 0]
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def bootstrap_interval(
    differences: Float[np.ndarray, "pair latent"],
    clusters: np.ndarray,
    *,
    n_bootstrap: int,
    confidence: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute a percentile interval for each latent's mean over pairs, by bootstrap over women.

    differences: a value for each pair and latent.
    clusters: the woman of each pair.
    n_bootstrap: number of resamples of women.
    confidence: level of the two-sided interval, between 0 and 1.
    Returns two arrays with one value per latent: the lower ends and the upper ends of the intervals.
    """
    n = differences.shape[1]
    low, high = np.empty(n), np.empty(n)
    chunk = max(1, CHUNK_VALUES // n_bootstrap)
    for start in range(0, n, chunk):
        part = slice(start, min(start + chunk, n))
        draws = bootstrap_means(differences[:, part], clusters, n_bootstrap, seed)
        low[part], high[part] = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high

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
    """An estimate with a two-sided bootstrap interval over women, all in the units of the estimate."""

    estimate: float
    low: float
    high: float

    def as_metrics(self) -> dict[str, float]:
        """For a metrics file."""
        return {"estimate": self.estimate, "low": self.low, "high": self.high}


def bootstrap_settings(inference: Inference) -> dict[str, Any]:
    """The keyword arguments of `interval` and `bootstrap_interval` that params.yaml sets."""
    return {"n_bootstrap": inference.n_bootstrap, "confidence": inference.confidence, "seed": inference.seed}


def bootstrap_means(
    values: Float[np.ndarray, "pair k"], clusters: np.ndarray, n_bootstrap: int, seed: int
) -> Float[np.ndarray, "n_bootstrap k"]:
    """Means over pairs in resamples of women, drawn with replacement; a woman brings all her pairs."""
    sums, counts = by_cluster(values, clusters)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=n_bootstrap).astype(float)
    return (weights @ sums) / (weights @ counts)[:, None]


def interval(
    values: Float[np.ndarray, " pair"], clusters: np.ndarray, *, n_bootstrap: int, confidence: float, seed: int
) -> Interval:
    """Mean over pairs with its percentile bootstrap interval over women."""
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
    """Percentile interval of each column's mean, by bootstrap over women: low, high [latent]."""
    n = differences.shape[1]
    low, high = np.empty(n), np.empty(n)
    chunk = max(1, CHUNK_VALUES // n_bootstrap)
    for start in range(0, n, chunk):
        part = slice(start, min(start + chunk, n))
        draws = bootstrap_means(differences[:, part], clusters, n_bootstrap, seed)
        low[part], high[part] = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high

"""Intervals and resamples by bootstrap over women: a resample draws women with replacement, each with all her pairs.

A mean is studentised: divided by its standard error, which treats the women as clusters. Its bootstrap-t interval
(Efron & Tibshirani 1993, section 12.5) follows skewed values, which the percentile interval does not. Few women make
it too narrow. Therefore the level of its quantiles is expanded as Hesterberg (2015, The American Statistician 69:371)
does for the percentile interval. Bounded values, such as accuracy, have another interval: `paired/bounded.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from jaxtyping import Float

from stages.core.paired.bounded import Bounds, bounded_interval
from stages.core.paired.clusters import CHUNK_VALUES, ROUNDING, by_cluster, means_and_errors, residuals
from stages.core.schema import Inference

N_ARRAYS = 4  # arrays of resampled results that `bootstrap_t` holds at once


@dataclass(frozen=True)
class Interval:
    """An estimate, and the ends `low` and `high` of its two-sided interval over women, in the same units."""

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


def interval(
    values: Float[np.ndarray, " pair"],
    clusters: np.ndarray,
    *,
    n_bootstrap: int,
    confidence: float,
    seed: int,
    bounds: Bounds | None = None,
) -> Interval:
    """Compute the mean over pairs, with its interval over women.

    values: one value per pair.
    clusters: the woman of each pair.
    n_bootstrap: number of resamples of women.
    confidence: level of the two-sided interval, between 0 and 1.
    bounds: the smallest and the largest possible value, such as (0, 1) for an outcome that is right or wrong. Not given
        if the values have no bounds.
    Returns a bootstrap-t interval for values without bounds. If all women have the same mean, such an interval has no
    width: they say nothing about other women. Values with bounds have an interval by `bounded_interval`, which always
    has a width.
    """
    if bounds is not None:
        return Interval(float(values.mean()), *bounded_interval(values, clusters, bounds, confidence))
    low, high = bootstrap_interval(values[:, None], clusters, n_bootstrap=n_bootstrap, confidence=confidence, seed=seed)
    return Interval(float(values.mean()), float(low[0]), float(high[0]))


def bootstrap_interval(
    values: Float[np.ndarray, "pair k"],
    clusters: np.ndarray,
    *,
    n_bootstrap: int,
    confidence: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute a bootstrap-t interval over women for the mean of each column over pairs.

    values: one row per pair, one column per quantity, such as a latent.
    clusters: the woman of each pair.
    n_bootstrap: number of resamples of women.
    confidence: level of the two-sided interval, between 0 and 1.
    Returns two arrays with one value per column: the lower ends and the upper ends of the intervals. No end is further
    from the mean than W standard errors, where W is the number of women. Where one woman alone differs from 0, that is
    her own mean.
    """
    sums, counts = by_cluster(values, clusters)
    means, errors = means_and_errors(sums, counts)
    weights = resample_women(len(counts), n_bootstrap, seed)
    level = expanded_level((1 - confidence) / 2, len(counts))
    low, high = np.empty(len(means)), np.empty(len(means))
    for part in column_chunks(len(means), n_bootstrap):
        t = np.clip(bootstrap_t(sums[:, part], counts, weights), -len(counts), len(counts))
        smallest, largest = np.quantile(t, [level, 1 - level], axis=0)
        low[part], high[part] = means[part] - largest * errors[part], means[part] - smallest * errors[part]
    return low, high


def resample_women(n_women: int, n_bootstrap: int, seed: int) -> Float[np.ndarray, "n_bootstrap woman"]:
    """Draw resamples of women with replacement.

    Returns how often each woman is in each resample.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_women, np.full(n_women, 1 / n_women), size=n_bootstrap).astype(np.float64)


def bootstrap_t(
    sums: Float[np.ndarray, "woman k"], counts: np.ndarray, weights: Float[np.ndarray, "n_bootstrap woman"]
) -> Float[np.ndarray, "n_bootstrap k"]:
    """Compute t of each resample: (mean of the resample - mean of all women) / standard error of the resample.

    sums, counts: sums over each woman's pairs, and numbers of pairs (`by_cluster`).
    weights: how often each woman is in each resample.
    Returns one row per resample. t is infinite in a resample whose women all have the same mean, unless this is also
    the mean of all women; then t is 0.
    """
    apart = residuals(sums, counts)
    n_pairs = (weights @ counts)[:, None]
    shift = weights @ apart / n_pairs
    squares = weights @ apart**2
    rounding = ROUNDING * squares
    squares += shift * (shift * (weights @ counts**2)[:, None] - 2 * (weights @ (apart * counts[:, None])))
    squares[squares <= rounding] = 0
    errors = np.sqrt(squares * len(counts) / max(len(counts) - 1, 1)) / n_pairs
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(shift == 0, 0.0, shift / errors)


def expanded_level(level: float, n_women: int) -> float:
    """Compute the level of the bootstrap quantile that stands in for the quantile at `level` (Hesterberg 2015).

    level: probability below the quantile, such as .025.
    Returns a smaller level: Phi(sqrt(W / (W - 1)) t), where t is the quantile at `level` of Student's t with W - 1
    degrees of freedom, and W is the number of women. For 12, 20 and 40 women, .025 becomes .011, .016 and .020.
    """
    freedom = max(n_women - 1, 1)
    return float(scipy.stats.norm.cdf(np.sqrt(n_women / freedom) * scipy.stats.t.ppf(level, freedom)))


def column_chunks(n_columns: int, n_bootstrap: int) -> Iterator[slice]:
    """Split columns into slices, such that the results of all resamples of a slice fit into memory."""
    size = max(1, CHUNK_VALUES // (N_ARRAYS * n_bootstrap))
    return (slice(start, min(start + size, n_columns)) for start in range(0, n_columns, size))

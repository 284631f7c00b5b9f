"""Intervals over women for the mean of bounded values, such as accuracy (0 to 1) or a gain of accuracy (-1 to 1).

A bootstrap fails near a bound. If all women of the sample are right, so is every resample, and the interval has no
width, although one woman in twenty may be wrong. The interval of Korn & Graubard (1998, Survey Methodology 24:193) has
a width: it is the exact binomial interval of Clopper & Pearson, at the effective sample size. This is the number of
independent images whose mean would vary as much as the mean over clustered images does.

Values that may be below 0 are split. Their mean is the mean of the parts above 0 minus the mean of the parts below 0.
Each of the two has an interval by Korn & Graubard, and MOVER joins them (method of variance estimates recovery; Zou &
Donner 2008, Statistics in Medicine 27:1693).
"""

from __future__ import annotations

import numpy as np
import scipy
from jaxtyping import Float

from stages.core.paired.clusters import by_cluster, means_and_errors, residuals

Bounds = tuple[float, float]  # the smallest and the largest possible value
SHARE: Bounds = (0.0, 1.0)  # right or wrong, IoU


def difference_bounds(bounds: Bounds | None) -> Bounds | None:
    """Compute the bounds of the difference of two values with the same bounds; none if they have none."""
    return None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])


def bounded_interval(
    values: Float[np.ndarray, " pair"], clusters: np.ndarray, bounds: Bounds, confidence: float
) -> tuple[float, float]:
    """Compute the interval over women of the mean over pairs of bounded values.

    values: one value per pair.
    clusters: the woman of each pair.
    bounds: the smallest possible value, 0 or below, and the largest possible value, above 0.
    confidence: level of the two-sided interval, between 0 and 1.
    Returns the lower end and the upper end. They lie within the bounds, and they never coincide.

    Raises ValueError if a value is outside the bounds.
    """
    smallest, largest = bounds
    values = np.asarray(values, dtype=np.float64)
    if values.min() < smallest or values.max() > largest:
        raise ValueError(f"values from {values.min()} to {values.max()} are outside their bounds {bounds}")
    scale = max(largest, -smallest)
    above, below = np.maximum(values, 0) / scale, np.maximum(-values, 0) / scale
    sums, counts = by_cluster(np.stack([above, below, above + below], axis=1), clusters)
    level = (1 - confidence) / 2
    shares, _ = means_and_errors(sums, counts)
    low, high = clopper_pearson(shares, effective_sizes(sums, counts, level), level)
    if smallest == 0:
        return float(scale * low[0]), float(scale * high[0])
    together = min(correlation(sums[:, 0], sums[:, 1], counts), 0.0)
    difference = shares[0] - shares[1]
    down = mover_distance(shares[0] - low[0], high[1] - shares[1], together)
    up = mover_distance(high[0] - shares[0], shares[1] - low[1], together)
    return float(scale * max(difference - down, -1)), float(scale * min(difference + up, 1))


def effective_sizes(sums: Float[np.ndarray, "woman 3"], counts: np.ndarray, level: float) -> Float[np.ndarray, " 3"]:
    """Compute the effective sample size of three mean shares: of the parts above 0, of those below 0, and of both.

    sums, counts: sums over each woman's pairs of values from 0 to 1, and numbers of pairs (`by_cluster`).
    level: probability beyond each end of the interval.
    Returns p (1 - p) / (standard error)^2 for a share p, times (t_pairs / t_women)^2. Here t_n is the quantile of
    Student's t at `level` with n - 1 degrees of freedom (Korn & Graubard 1998).
    A share that does not vary over women does not tell how alike the images of a woman are. Its size is that of both
    parts together, if they vary. It is at least the number of women: then all images of a woman count as one.
    """
    shares, errors = means_and_errors(sums, counts)
    t_pairs, t_women = scipy.stats.t.ppf(level, np.maximum([counts.sum() - 1, len(counts) - 1], 1))
    varies = errors > 0
    sizes = np.full(len(shares), float(len(counts)))
    sizes[varies] = shares[varies] * (1 - shares[varies]) / errors[varies] ** 2 * (t_pairs / t_women) ** 2
    return np.where(varies, sizes, np.maximum(sizes, sizes[2]))


def clopper_pearson(shares: np.ndarray, sizes: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute exact binomial intervals (Clopper & Pearson 1934).

    shares: observed shares.
    sizes: sample sizes, which need not be whole numbers.
    level: probability beyond each end.
    Returns the lower ends and the upper ends.
    """
    hits, misses = shares * sizes, (1 - shares) * sizes
    low = np.where(hits > 0, scipy.stats.beta.ppf(level, np.where(hits > 0, hits, 1), misses + 1), 0.0)
    high = np.where(misses > 0, scipy.stats.beta.ppf(1 - level, hits + 1, np.where(misses > 0, misses, 1)), 1.0)
    return low, high


def correlation(a: Float[np.ndarray, " woman"], b: Float[np.ndarray, " woman"], counts: np.ndarray) -> float:
    """Compute the correlation of two means over women, from the sums over each woman's pairs; 0 if one is constant."""
    apart = residuals(np.stack([a, b], axis=1), counts)
    norm = np.sqrt(np.square(apart).sum(0).prod())
    return float(apart[:, 0] @ apart[:, 1] / norm) if norm > 0 else 0.0


def mover_distance(a: float, b: float, together: float) -> float:
    """Compute the distance from a difference of two estimates to an end of its interval, by MOVER.

    a, b: distances from the two estimates to the ends of their own intervals.
    together: correlation of the estimates.
    """
    return float(np.sqrt(a**2 + b**2 - 2 * together * a * b))

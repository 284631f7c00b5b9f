"""Matched pairs, and inference on them clustered by woman. The published study's tests stand beside.

A pair is two images of one woman with one expression: one semi-nude, one clothed. The pair is the unit of inference.
Women are the clusters: signs are flipped and bootstraps are drawn by woman, never by image, token or latent.

The gap of a quantity is its clothed value minus its semi-nude value, everywhere (`gap`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Float, Int, Integer

from stages.core.run.errors import StudyError
from stages.core.run.labels import CLOTHED, CONDITIONS, SEMI_NUDE
from stages.core.schema import Inference

CHUNK_VALUES = 2**24  # permutation results held at once, as a count of float64 values

Value = TypeVar("Value", float, np.ndarray)


class TooFewWomen(StudyError):
    """The pairs come from too few women for any inference. The message names the remedy."""


def gap(by_condition: Mapping[str, Value]) -> Value:
    """The clothed value minus the semi-nude value."""
    return by_condition[CLOTHED] - by_condition[SEMI_NUDE]


@dataclass(frozen=True)
class Interval:
    """An estimate with a two-sided bootstrap interval over women, all in the units of the estimate."""

    estimate: float
    low: float
    high: float

    def as_metrics(self) -> dict[str, float]:
        """For a metrics file."""
        return {"estimate": self.estimate, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Pairs:
    """Matched pairs of one split of women, or of all women. Row numbers count images of the data set."""

    table: pd.DataFrame
    """A row per pair: pair, identity, emotion, split, and the row number of each condition's image."""

    @classmethod
    def from_images(cls, images: pd.DataFrame, split: str | None = None) -> Pairs:
        """Match the images of a data set's table. `split` keeps the pairs of one split of women.

        images: columns pair (-1 for an image without a twin), identity, emotion, split, condition.
        """
        audit = images[images["pair"] >= 0]
        wide = audit.reset_index(names="row").pivot(index="pair", columns="condition", values="row")
        described = audit.groupby("pair")[["identity", "emotion", "split"]].first()
        table = described.join(wide).reset_index()
        return cls(table if split is None else table[table["split"] == split].reset_index(drop=True))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def women(self) -> np.ndarray:
        """The woman of each pair [pair]."""
        return self.table["identity"].to_numpy()

    @property
    def n_women(self) -> int:
        """The number of different women."""
        return int(self.table["identity"].nunique())

    @property
    def semi_nude(self) -> Int[np.ndarray, " pair"]:
        """Row numbers of the semi-nude images."""
        return self.table[SEMI_NUDE].to_numpy()

    @property
    def clothed(self) -> Int[np.ndarray, " pair"]:
        """Row numbers of the clothed images."""
        return self.table[CLOTHED].to_numpy()

    @property
    def rows(self) -> Int[np.ndarray, " image"]:
        """Row numbers of all images: the semi-nude ones, then the clothed ones, each pair by pair."""
        return np.concatenate([self.table[condition].to_numpy() for condition in CONDITIONS])

    def positions(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " image"]:
        """Where the images of `self.rows` stand in `rows` (ascending row numbers)."""
        return np.searchsorted(rows, self.rows)

    def split(self, values: np.ndarray, axis: int = -1) -> dict[str, np.ndarray]:
        """Split values of the images in `rows` by condition: the image axis becomes a pair axis."""
        return dict(zip(CONDITIONS, np.split(values, len(CONDITIONS), axis), strict=True))

    def gap(self, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """Clothed minus semi-nude twin, pair by pair, of values of the images in `rows`."""
        return gap(self.split(values, axis))

    def interval(self, values: Float[np.ndarray, " pair"], inference: Inference) -> Interval:
        """Mean over pairs, with its bootstrap interval over women."""
        return interval(values, self.women, **bootstrap_settings(inference))

    def summary(self, values: Float[np.ndarray, " image"], inference: Inference) -> dict[str, dict[str, float]]:
        """Means of both conditions and of the gap, each with its interval, for a metrics file."""
        shown = {**self.split(values), "gap": self.gap(values)}
        return {label: self.interval(numbers, inference).as_metrics() for label, numbers in shown.items()}


def bootstrap_settings(inference: Inference) -> dict[str, Any]:
    """The keyword arguments of `interval` and `bootstrap_interval` that params.yaml sets."""
    return {"n_bootstrap": inference.n_bootstrap, "confidence": inference.confidence, "seed": inference.seed}


def published_tests(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]) -> dict[str, float]:
    """The published study's tests of two samples of latents' mean activations. Descriptive: the unit is a latent.

    Kolmogorov-Smirnov D and p, Mann-Whitney U p (two-sided), AUC = U / (n m) (the study's "effect size"),
    Cliff's delta = 2 AUC - 1.
    """
    ks, mwu = scipy.stats.ks_2samp(a, b), scipy.stats.mannwhitneyu(a, b, alternative="two-sided")
    auc = float(mwu.statistic) / (len(a) * len(b))
    return {
        "ks_statistic": float(ks.statistic),
        "ks_p": float(ks.pvalue),
        "mwu_p": float(mwu.pvalue),
        "auc": auc,
        "cliffs_delta": 2 * auc - 1,
    }


def by_cluster(values: Float[np.ndarray, "pair ..."], clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the pairs of each woman [woman, ...], and how many pairs she has [woman]."""
    _, index = np.unique(clusters, return_inverse=True)
    counts = np.bincount(index)
    sums = np.zeros((len(counts), *values.shape[1:]))
    np.add.at(sums, index, values)
    return sums, counts


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


def paired_tests(
    differences: Float[np.ndarray, "pair latent"],
    clusters: Integer[np.ndarray, " pair"] | np.ndarray,
    *,
    n_permutations: int = 2000,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Test every latent's paired difference against zero, such as its gap (`Pairs.gap`).

    Returns a row per latent:
        mean             mean difference
        low, high        bootstrap interval of the mean, over women
        rank_biserial    matched-pairs rank-biserial correlation, in [-1, 1] (Kerby 2014); 0 if all differences are 0
        wilcoxon_p       signed-rank test over pairs, zeros dropped, normal approximation; 1 if all are 0 (descriptive:
                         it takes pairs of one woman for independent)
        t                mean over its cluster-robust standard error; 0 if all differences are 0
        p                sign-flip permutation at the level of women, two-sided
        p_max_t          the same with max-T over all latents: family-wise (Westfall & Young 1993)
        q                Benjamini-Hochberg over p: exploratory
    The smallest p that W women allow is max(2 / 2^W, 1 / (1 + n_permutations)): `smallest_p`.
    """
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 2 or len(differences) != len(clusters):
        raise ValueError(f"differences {differences.shape} must be [pair, latent] with a cluster for each pair")
    if not np.isfinite(differences).all():
        raise ValueError("differences are not finite")
    sums, counts = by_cluster(differences, np.asarray(clusters))
    if len(counts) < 2:
        raise TooFewWomen("pairs of one woman only: no inference to other women; add women, or another discovery_share")
    t, p, p_max_t = _sign_flips(sums, n_permutations, seed)
    low, high = bootstrap_interval(
        differences, np.asarray(clusters), n_bootstrap=n_bootstrap, confidence=confidence, seed=seed
    )
    rank_biserial, wilcoxon_p = signed_ranks(differences)
    return pd.DataFrame(
        {
            "mean": differences.mean(0),
            "low": low,
            "high": high,
            "rank_biserial": rank_biserial,
            "wilcoxon_p": wilcoxon_p,
            "t": t,
            "p": p,
            "p_max_t": p_max_t,
            "q": scipy.stats.false_discovery_control(p),
        }
    )


def max_t(
    differences: Float[np.ndarray, "pair latent"], clusters: np.ndarray, n_permutations: int, seed: int
) -> Float[np.ndarray, " latent"]:
    """The family-wise p of `paired_tests` alone."""
    sums, _ = by_cluster(np.asarray(differences, dtype=np.float64), clusters)
    return _sign_flips(sums, n_permutations, seed)[2]


def smallest_p(n_women: int, n_permutations: int) -> float:
    """The smallest two-sided p a sign-flip test of so many women can give."""
    return max(2.0 / 2.0**n_women, 1 / (1 + n_permutations))


def _sign_flips(
    sums: Float[np.ndarray, "woman latent"], n_permutations: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observed t, pointwise p and max-T p. Flipping a woman flips the sum of her pairs.

    The statistic is sum / sqrt(sum of squares) over women: monotone in t, and its denominator is
    invariant under flips, so all permutations are one matrix product.
    """
    norm = np.sqrt(np.square(sums).sum(0))
    scaled = np.divide(sums, norm, out=np.zeros_like(sums), where=norm > 0)
    observed = np.abs(scaled.sum(0))
    tolerance = 1e-9  # an exact tie is as extreme as the observation, whatever the rounding
    exceeding = np.zeros(sums.shape[1], dtype=np.int64)
    largest = []
    rng = np.random.default_rng(seed)
    chunk = max(1, CHUNK_VALUES // sums.shape[1])
    for start in range(0, n_permutations, chunk):
        n = min(chunk, n_permutations - start)
        signs = rng.integers(0, 2, size=(n, len(sums))) * 2.0 - 1.0
        flipped = np.abs(signs @ scaled)
        exceeding += (flipped >= observed - tolerance).sum(0)
        largest.append(flipped.max(1))
    maxima = np.sort(np.concatenate(largest))
    as_extreme = n_permutations - np.searchsorted(maxima, observed - tolerance, side="left")
    women = len(sums)
    spread = np.sqrt(np.maximum(1 - observed**2 / women, 1e-12) * women / (women - 1))
    t = np.sign(scaled.sum(0)) * observed / spread
    return t, (1 + exceeding) / (1 + n_permutations), (1 + as_extreme) / (1 + n_permutations)


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


def signed_ranks(differences: Float[np.ndarray, "pair latent"]) -> tuple[np.ndarray, np.ndarray]:
    """Matched-pairs rank-biserial correlation and Wilcoxon's signed-rank p of each column.

    Zeros are dropped, ties share their mean rank, and p is the normal approximation with the tie
    correction and no continuity correction: scipy's `wilcoxon(method="asymptotic")`.
    """
    nonzero = differences != 0
    n = nonzero.sum(0)
    zeros_below = len(differences) - n  # zeros share the lowest ranks, so dropping them shifts the others down
    ranks = (scipy.stats.rankdata(np.abs(differences), axis=0) - zeros_below) * nonzero
    positive = (ranks * (differences > 0)).sum(0)
    total = n * (n + 1) / 2
    rank_biserial = np.divide(2 * positive - total, total, out=np.zeros(len(n)), where=total > 0)
    variance = np.square(ranks).sum(0) / 4  # ties included: var(W+) = sum of squared ranks / 4
    z = np.divide(positive - total / 2, np.sqrt(variance), out=np.zeros(len(n)), where=variance > 0)
    return rank_biserial, 2 * scipy.stats.norm.sf(np.abs(z))

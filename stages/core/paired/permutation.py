"""Sign-flip permutation tests at the level of women, with max-T over all latents (family-wise)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Float, Integer

from stages.core.paired.bootstrap import bootstrap_interval
from stages.core.paired.clusters import CHUNK_VALUES, TooFewWomen, by_cluster

EXACT_WOMEN = 12  # up to this number of women, all 2^12 patterns of signs are tried


def paired_tests(
    differences: Float[np.ndarray, "pair latent"],
    clusters: Integer[np.ndarray, " pair"] | np.ndarray,
    *,
    n_permutations: int = 2000,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Test for each latent whether the mean of its paired differences is zero.

    differences: a value for each pair and latent, such as the gap (clothed minus semi-nude twin).
    clusters: the woman of each pair.
    n_permutations, n_bootstrap: number of sign flips of the women, and of resamples of the women.
    confidence: level of the two-sided bootstrap intervals, between 0 and 1.
    seed: seed of the sign flips and of the bootstrap.

    Returns a row per latent:
        mean             mean difference
        low, high        bootstrap interval of the mean, over women
        rank_biserial    matched-pairs rank-biserial correlation, in [-1, 1] (Kerby 2014); 0 if all differences are 0
        wilcoxon_p       signed-rank test over pairs, zeros dropped, normal approximation; 1 if all are 0. Descriptive:
                         the test treats the pairs of one woman as independent
        t                mean over its cluster-robust standard error; 0 if all differences are 0
        p                two-sided p of the sign-flip permutation test at the level of women
        p_max_t          family-wise p of the same test, by max-T over all latents (Westfall & Young 1993)
        q                p adjusted by Benjamini-Hochberg over the latents: exploratory
    At most 12 women have all patterns of signs: p is exact. `smallest_p` gives the smallest possible p.

    Raises ValueError if the shapes do not fit or a difference is not finite. Raises TooFewWomen if all pairs are of one
    woman.
    """
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 2 or len(differences) != len(clusters):
        raise ValueError(f"differences {differences.shape} must be [pair, latent] with a cluster for each pair")
    if not np.isfinite(differences).all():
        raise ValueError("differences are not finite")
    sums, _ = by_cluster(differences, np.asarray(clusters))
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
    """Compute the two-sided family-wise p of each latent's mean difference, by max-T over all latents.

    In each permutation, all differences of a woman keep their sign or all change it, at random. The largest statistic
    over the latents is then compared with the observed statistic of each latent (Westfall & Young 1993).

    differences: a value for each pair and latent, from at least two women.
    clusters: the woman of each pair.
    n_permutations: number of random sign flips of the women.
    Returns one p per latent. Raises TooFewWomen if all pairs are of one woman.
    """
    sums, _ = by_cluster(np.asarray(differences, dtype=np.float64), clusters)
    return _sign_flips(sums, n_permutations, seed)[2]


def smallest_p(n_women: int, n_permutations: int) -> float:
    """Compute the smallest two-sided p that a sign-flip permutation test of `n_women` women can give.

    n_permutations: number of random sign flips, drawn if the women are more than EXACT_WOMEN (12).
    Returns 2 / 2^n_women for at most 12 women, and 1 / (1 + n_permutations) for more.
    """
    return 2.0 / 2.0**n_women if n_women <= EXACT_WOMEN else max(2.0 / 2.0**n_women, 1 / (1 + n_permutations))


def _signs(n_women: int, n_permutations: int, seed: int) -> Float[np.ndarray, "flip woman"]:
    """Signs of the women in each flip. The first row is the observation itself: no woman is flipped.

    At most 12 women have all patterns of signs, but for a factor of -1, which changes no two-sided test. More women
    have `n_permutations` random patterns.
    """
    if n_women > EXACT_WOMEN:
        drawn = np.random.default_rng(seed).integers(0, 2, size=(n_permutations, n_women)) * 2.0 - 1.0
        return np.concatenate([np.ones((1, n_women)), drawn])
    patterns = np.arange(2 ** (n_women - 1))[:, None]
    return 1.0 - 2.0 * (patterns >> np.arange(n_women) & 1)


def _sign_flips(
    sums: Float[np.ndarray, "woman latent"], n_permutations: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observed t, pointwise p and max-T p. Flipping a woman flips the sum of her pairs.

    The statistic is sum / sqrt(sum of squares) over women: monotone in t, and its denominator is
    invariant under flips, so all permutations are one matrix product.
    """
    if len(sums) < 2:
        raise TooFewWomen("pairs of one woman only: no inference to other women; add women, or another discovery_share")
    norm = np.sqrt(np.square(sums).sum(0))
    scaled = np.divide(sums, norm, out=np.zeros_like(sums), where=norm > 0)
    observed = np.abs(scaled.sum(0))
    least = observed - 1e-9  # an exact tie is as extreme as the observation, whatever the rounding
    signs = _signs(len(sums), n_permutations, seed)
    exceeding = np.zeros(sums.shape[1], dtype=np.int64)
    largest = []
    chunk = max(1, CHUNK_VALUES // sums.shape[1])
    for start in range(0, len(signs), chunk):
        flipped = np.abs(signs[start : start + chunk] @ scaled)
        exceeding += (flipped >= least).sum(0)
        largest.append(flipped.max(1))
    maxima = np.sort(np.concatenate(largest))
    as_extreme = len(signs) - np.searchsorted(maxima, least, side="left")
    women = len(sums)
    spread = np.sqrt(np.maximum(1 - observed**2 / women, 1e-12) * women / (women - 1))
    t = np.sign(scaled.sum(0)) * observed / spread
    return t, exceeding / len(signs), as_extreme / len(signs)


def signed_ranks(differences: Float[np.ndarray, "pair latent"]) -> tuple[np.ndarray, np.ndarray]:
    """Compute the matched-pairs rank-biserial correlation and Wilcoxon's signed-rank p of each latent.

    differences: a value for each pair and latent.
    Returns two arrays with one value per latent: the correlation, in [-1, 1], and the two-sided p. If all differences
    are 0, the correlation is 0 and p is 1.

    Zeros are dropped. Ties share their mean rank. p is the normal approximation with the tie correction and without a
    continuity correction, as in scipy's `wilcoxon(method="asymptotic")`.
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

"""Which latents harm: the step-down test of Romano & Wolf (2005, Econometrica 73:1237), by bootstrap over women.

The null hypothesis of a latent is: its mean gap over women is 0 or below. The family-wise error is the probability that
one or more latents are named whose null hypothesis is true.

Sign flips (`paired/permutation.py`) test another null hypothesis: the gap of a woman is as often above 0 as below, by
the same amounts. A latent that helps few women much and harms many women a little has a mean of 0 and fails this
hypothesis, so sign flips name it. The bootstrap asks about the mean alone. Each resample gives the largest t over all
latents, and the tails of these t are those of the skewed gaps themselves.

No test can be right for every distribution (Bahadur & Savage 1956): what no woman of the sample shows, no resample
shows. `stages/studies/inference.md` has the measured error rates and power.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float

from stages.core.paired.bootstrap import bootstrap_t, column_chunks, resample_women
from stages.core.paired.clusters import by_cluster, means_and_errors

WIDEST = 0.05  # alpha whose family is also that of every smaller alpha


def harm_p(
    families: Iterable[Float[np.ndarray, "pair _"]],
    clusters: np.ndarray,
    *,
    alpha: float,
    min_effect: float,
    n_bootstrap: int,
    seed: int,
) -> list[np.ndarray]:
    """Test for each latent whether its mean gap is above 0, with one family-wise error over all latents of all SAEs.

    families: for each SAE, the gap of each pair and latent (clothed minus semi-nude twin; above 0: harm). The pairs are
        the same for all SAEs. Each array is reduced to sums of women before the next one is taken.
    clusters: the woman of each pair.
    alpha: family-wise error rate at which latents will be named. A latent on few women is not named (`nameable`).
    min_effect: smallest gap that counts, in the units of the gaps. A latent that does less is not tested (`in_family`).
    n_bootstrap: number of resamples of women.
    seed: seed of the resamples.
    Returns for each SAE the family-wise p of each latent, one-sided; 1 for a latent that cannot be named. The smallest
    possible p is 1 / (1 + n_bootstrap). Fewer than log2(1 / alpha) women can name nothing: every p is 1. At .05 these
    are fewer than 5 women, at .005 fewer than 8.
    """
    reduced = [by_cluster(np.asarray(gaps, dtype=np.float64), clusters) for gaps in families]
    widths, counts = [sums.shape[1] for sums, _ in reduced], reduced[0][1]
    sums = np.concatenate([sums for sums, _ in reduced], axis=1)
    p = np.ones(sums.shape[1])
    tested = np.flatnonzero(in_family(sums, counts, alpha, min_effect))
    p[tested] = step_down(sums[:, tested], counts, resample_women(len(counts), n_bootstrap, seed))
    return np.split(np.where(nameable(sums, alpha), p, 1.0), np.cumsum(widths)[:-1])


def effective_women(sums: Float[np.ndarray, "woman latent"]) -> Float[np.ndarray, " latent"]:
    """Compute the number of women on whom a latent acts: (sum of |x|)^2 / (sum of x^2), x being a woman's sum.

    Returns k for a latent with equal |x| on k women and 0 on the others, and 0 for a latent that never acts.
    """
    squares = np.square(sums).sum(0)
    return np.divide(np.abs(sums).sum(0) ** 2, squares, out=np.zeros(len(squares)), where=squares > 0)


def nameable(sums: Float[np.ndarray, "woman latent"], alpha: float) -> Bool[np.ndarray, " latent"]:
    """Find the latents that enough women carry to be named at `alpha`.

    These are at least log2(1 / alpha) effective women, because the signs of k women have no p below 2^-k.
    """
    return effective_women(sums) >= np.log2(1 / alpha)


def in_family(
    sums: Float[np.ndarray, "woman latent"], counts: np.ndarray, alpha: float, min_effect: float
) -> Bool[np.ndarray, " latent"]:
    """Find the latents that are tested together. The others could not be named (Tarone 1990, Biometrics 46:515).

    The mean over pairs of |mean gap of the woman| must be at least `min_effect`, since a mean gap above it is demanded.
    The latent must be `nameable` at `alpha`, or at WIDEST (.05) if alpha is smaller. A small alpha does not make the
    family smaller: latents that four to seven women carry show how skewed gaps can be. Without them, a latent on which
    no such woman was drawn looks harmful by mistake.
    The signs of the gaps play no part, so the choice favours neither harm nor help.
    """
    size = np.abs(sums).sum(0) / counts.sum()
    return (size >= min_effect) & (size > 0) & nameable(sums, max(alpha, WIDEST))


def step_down(
    sums: Float[np.ndarray, "woman latent"], counts: np.ndarray, weights: Float[np.ndarray, "n_bootstrap woman"]
) -> Float[np.ndarray, " latent"]:
    """Compute the one-sided family-wise p of each latent's mean, by bootstrap-t and step-down over latents.

    The p of a latent counts the resamples whose largest t, over this latent and all latents with a smaller observed t,
    is at least its observed t. No p is below that of a latent with a larger observed t.

    sums, counts: sums over each woman's pairs, and numbers of pairs (`by_cluster`).
    weights: how often each woman is in each resample.
    """
    observed = _observed_t(sums, counts)
    order = np.argsort(observed)
    largest = np.full((len(weights), 1), -np.inf)
    p = np.empty(len(observed))
    for part in column_chunks(len(order), len(weights)):
        t = bootstrap_t(sums[:, order[part]], counts, weights)
        running = np.maximum.accumulate(np.concatenate([largest, t], axis=1), axis=1)[:, 1:]
        p[order[part]] = (1 + (running >= observed[order[part]]).sum(0)) / (1 + len(weights))
        largest = running[:, -1:]
    p[order[::-1]] = np.maximum.accumulate(p[order[::-1]])
    return p


def _observed_t(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over its standard error; infinite if all women have the same mean, unless this is 0."""
    means, errors = means_and_errors(sums, counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(means == 0, 0.0, means / errors)

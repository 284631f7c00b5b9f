"""The published study's tests of two samples of latents. Their unit is the latent, so they are descriptive."""

from __future__ import annotations

import numpy as np
import scipy
from jaxtyping import Float


def published_tests(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]) -> dict[str, float]:
    """Compare two samples of latents' mean activations with the tests of the study that this project replicates.

    The tests treat each latent as an independent observation, so the results are descriptive.

    a: mean activation of each latent in one condition.
    b: mean activation of each latent in the other condition.
    Returns:
        ks_statistic, ks_p    Kolmogorov-Smirnov D and its p
        mwu_p                 Mann-Whitney U p, two-sided
        auc                   U / (n m); above one half if `a` tends to be larger. The study calls it "effect size"
        cliffs_delta          2 AUC - 1
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

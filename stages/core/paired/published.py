"""The published study's tests of two samples of latents. Their unit is the latent, so they are descriptive."""

from __future__ import annotations

import numpy as np
import scipy
from jaxtyping import Float


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

"""The step-by-step search for bias latents: those whose effect on the emotion readout harms semi-nude women.

Where several latents carry a bias, one hides what another does: while the first ones saturate the readout, the gradient
through the others is nearly zero. So the most harmful latents are edited, and the others are tested again in the edited
model, until none is significant. Without a bias the first step ends the search, so its family-wise error (max-T over
latents) is that of the list. Each later step follows only a step that found something, and is tested at the same rate.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Float

from stages.core import paired
from stages.core.latents.lists import COLUMNS
from stages.core.schema import Inference


def find_bias_latents(
    effect_gaps: Callable[[list[int]], Float[np.ndarray, "pair latent"]],
    clusters: np.ndarray,
    inference: Inference,
    *,
    n_per_step: int,
    n_most: int,
) -> pd.DataFrame:
    """Find, step by step, the latents that harm the emotion readout on semi-nude women.

    Each step edits the latents found so far, and tests the other latents in the edited model. The search ends when a
    step finds no latent, or when `n_most` latents are found. The effect gap of a latent is its effect on R
    (log-probability of the true emotion, nats) on the clothed twin minus its effect on the semi-nude twin.

    effect_gaps: a function from the indices of the edited latents to the effect gaps in the edited model, [pair,
        latent].
    clusters: the woman of each pair.
    inference: settings of the tests and intervals: level, smallest effect, permutations, bootstrap, seed.
    n_per_step, n_most: largest number of latents in one step, and in all steps together.
    Returns a row per latent found, by step, and in a step the most harmful first. Columns: latent (index), step (from
    1), mean, low, high (mean effect gap at that step, and its interval), p_max_t (family-wise p).
    """
    steps: list[pd.DataFrame] = []
    edited: list[int] = []
    while len(edited) < n_most:
        gaps = effect_gaps(edited)
        gaps[:, edited] = 0
        new = harmful_latents(gaps, clusters, inference)[: min(n_per_step, n_most - len(edited))]
        if new.empty:
            break
        steps.append(new.assign(step=len(steps) + 1))
        edited += new["latent"].tolist()
    return pd.concat(steps, ignore_index=True)[COLUMNS] if steps else pd.DataFrame(columns=COLUMNS)


def harmful_latents(gaps: Float[np.ndarray, "pair latent"], clusters: np.ndarray, inference: Inference) -> pd.DataFrame:
    """List the latents whose effect on R is significantly lower on the semi-nude twin, the most harmful first.

    R is the log-probability of the true emotion, nats. A listed latent meets two conditions. The family-wise p of its
    mean gap is at most `inference.alpha`. The whole bootstrap interval of its mean gap is above `inference.min_effect`.

    gaps: effect of each latent on R, clothed minus semi-nude twin, for each pair.
    clusters: the woman of each pair. There must be at least two women.
    inference: settings of the test and of the intervals.
    Returns a row per listed latent. Columns: latent (index), mean, low, high (mean gap and its bootstrap interval,
    nats), p_max_t (family-wise p).
    """
    p_max_t = paired.max_t(gaps, clusters, inference.n_permutations, inference.seed)
    mean = gaps.mean(0)
    candidates = np.flatnonzero((p_max_t <= inference.alpha) & (mean > inference.min_effect))
    settings = paired.bootstrap_settings(inference)
    low, high = paired.bootstrap_interval(gaps[:, candidates], clusters, **settings)
    table = pd.DataFrame(
        {"latent": candidates, "mean": mean[candidates], "low": low, "high": high, "p_max_t": p_max_t[candidates]}
    )
    return table[table["low"] > inference.min_effect].sort_values("mean", ascending=False, ignore_index=True)

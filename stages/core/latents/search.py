"""The step-by-step search for latents that harm the emotion readout in the losing condition.

Where several latents carry a bias, one hides what another does: while the first ones saturate the readout, the gradient
through the others is nearly zero. So the most harmful latents are edited, and the others are tested again in the edited
model, until none is significant. Without a bias the first step ends the search, so its family-wise error is that of the
list. Each later step follows only a step that found something, and is tested at the same rate.

A latent that is found may still be a bad one to edit: it harms the losing condition more than the other, but the other
needs it, too. Such a latent stays on the list, but is set aside: it is left as it is when the search goes on, and is
tried again after each step, since together with others it may be a good one.

    losing    the condition that CLIP reads worse (`latents/readout_gap.py`); the twin is in the other condition
    effect    effect of a latent on R, the log-probability of the true emotion, nats (`latents/effects.py`)
    gap       effect in the other condition minus effect in the losing one
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from stages.core import paired
from stages.core.latents.edited_effects import Effects
from stages.core.latents.lists import COLUMNS
from stages.core.run.labels import OTHER_CONDITION
from stages.core.schema import Inference

ByCondition = dict[str, Float[np.ndarray, "pair latent"]]
Ranking = Callable[[ByCondition], pd.DataFrame]
"""A function from the effects of the candidates by condition to a table of those that count, the worst first. Column
`latent` holds positions among the candidates."""
Acceptance = Callable[[list[int], list[int]], bool]
"""A function from the indices of the edited latents, and of some more, to whether these shall be edited, too."""


def find_step_by_step(
    effects: Effects,
    candidates: Int[np.ndarray, " c"],
    rank: Ranking,
    accepts: Acceptance,
    *,
    n_per_step: int,
    n_most: int,
) -> tuple[pd.DataFrame, list[int]]:
    """Find latents step by step: edit the good ones of those found so far, rank the others in the edited model.

    The search ends when a step finds no latent, or when `n_most` latents are edited.

    effects: a function from the indices of the edited latents to the effects of the candidates in the edited model.
    candidates: indices of the latents that can be found.
    rank: `harmful_latents` or `most_gaining`, with their further arguments filled in.
    accepts: decides whether latents found are edited, such as `Gains.accept`. It is asked about all latents of a step
        together, and if they are not accepted, about each half of them, and so on.
    n_per_step, n_most: largest number of latents found in one step, and edited in all steps together.
    Returns two results. The first is a table with a row per latent found, by step, and in a step the most harmful
    first. Columns: latent (index), step (from 1), and those that `rank` gives: mean, low, high (mean gap at that step
    and its interval, nats), p_max_t (family-wise p). The second lists the latents accepted, in order of acceptance.
    """
    steps: list[pd.DataFrame] = []
    found: list[int] = []
    edited: list[int] = []
    measured_at: list[int] | None = None
    while len(edited) < n_most:
        if measured_at != edited:  # a step that edits nothing more leaves the effects as they were
            now, measured_at = effects(edited), list(edited)
        for values in now.values():
            values[:, np.isin(candidates, found)] = 0
        new = rank(now)[: min(n_per_step, n_most - len(edited))]
        if new.empty:
            break
        steps.append(new.assign(step=len(steps) + 1, latent=candidates[new["latent"]]))
        aside, new_ones = [latent for latent in found if latent not in edited], steps[-1]["latent"].tolist()
        found += new_ones
        for some in [new_ones, *([latent] for latent in aside)]:
            if len(edited) < n_most:
                edited += _accepted(accepts, edited, some)
    return pd.concat(steps, ignore_index=True)[COLUMNS] if steps else pd.DataFrame(columns=COLUMNS), edited


def _accepted(accepts: Acceptance, edited: list[int], latents: list[int]) -> list[int]:
    """The latents that are accepted: all together, or else those of the first half, and then of the second."""
    if accepts(edited, latents):
        return latents
    if len(latents) == 1:
        return []
    half = len(latents) // 2
    first = _accepted(accepts, edited, latents[:half])
    return first + _accepted(accepts, [*edited, *first], latents[half:])


def harmful_latents(effects: ByCondition, losing: str, clusters: np.ndarray, inference: Inference) -> pd.DataFrame:
    """List the latents that are shown to harm the emotion readout in the losing condition, the most harmful first.

    A listed latent meets three conditions. The family-wise p of its mean gap is at most `inference.alpha`. The whole
    interval of its mean gap lies above `inference.min_effect`. The whole interval of its mean effect in the losing
    condition lies below minus `inference.min_effect`: the latent does harm there, and does not merely help the twin.

    effects: effect of each latent on each pair's two images, nats, by condition.
    losing: the condition that is read worse.
    clusters: the woman of each pair. There must be at least two women.
    inference: settings of the test and of the intervals.
    Returns a row per listed latent. Columns: latent (its position), mean, low, high (mean gap and its interval, nats),
    p_max_t (family-wise p).
    """
    gaps = paired.gap(effects, losing)
    p = paired.harm_p(
        [gaps],
        clusters,
        alpha=inference.alpha,
        min_effect=inference.min_effect,
        n_bootstrap=inference.n_bootstrap,
        seed=inference.seed,
    )[0]
    promising = (p <= inference.alpha) & (gaps.mean(0) > inference.min_effect)
    found = np.flatnonzero(promising & (effects[losing].mean(0) < -inference.min_effect))
    settings = paired.bootstrap_settings(inference)
    low, high = paired.bootstrap_interval(gaps[:, found], clusters, **settings)
    _, least_harm = paired.bootstrap_interval(effects[losing][:, found], clusters, **settings)
    table = pd.DataFrame(
        {"latent": found, "mean": gaps[:, found].mean(0), "low": low, "high": high, "p_max_t": p[found]}
    )
    shown = (table["low"] > inference.min_effect) & (least_harm < -inference.min_effect)
    return table[shown].sort_values("mean", ascending=False, ignore_index=True)


def most_gaining(effects: ByCondition, losing: str, *, twins: bool = True) -> pd.DataFrame:
    """Rank the latents by what editing them gains to first order, without a test.

    The net gain of a latent is the rise of R in the losing condition less the absolute change of R in the other.

    effects: effect of each latent on each pair's two images, nats, by condition. Editing the latent takes it away.
    losing: the condition that is read worse.
    twins: if False, the condition is ignored: the gain is the mean rise of R in both.
    Returns a row per latent that gains, the first gains most: latent (its position), mean (net gain, nats), low and
    high (equal to mean) and p_max_t (1): nothing is tested.
    """
    rise = {condition: -values.mean(0) for condition, values in effects.items()}
    other = rise[OTHER_CONDITION[losing]]
    gain = rise[losing] - np.abs(other) if twins else (rise[losing] + other) / 2
    ranked = np.argsort(-gain, kind="stable")
    ranked = ranked[gain[ranked] > 0]
    return pd.DataFrame(
        {"latent": ranked, "mean": gain[ranked], "low": gain[ranked], "high": gain[ranked], "p_max_t": 1.0}
    )

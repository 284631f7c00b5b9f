"""Searches for latents on labels that mean nothing: what any such search finds, and how much it seems to gain.

Each search is the same step by step as that for the edit, in the same SAE, and finds as many latents. It has no test
that could end it, so that like is compared with like. Its edit is judged on the women held out, as the edit is.

    labels_swapped       which twin counts as the losing one is drawn for each woman
    emotions_shuffled    R is about the emotion of another of the woman's pairs
    wrong_emotion        R is about an emotion, drawn for each pair, that is not the true one
    condition_ignored    latents are ranked by their harm in both conditions. This is no null: it shows what twins add.
                         Nothing is drawn, so there is one such search
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Int

from stages.core.ablation.arms import ArmInputs
from stages.core.latents.edited_effects import EditedEffects, Effects, candidate_latents
from stages.core.latents.search import ByCondition, find_step_by_step, most_harmful
from stages.core.paired import Pairs
from stages.core.run.labels import CONDITIONS
from stages.core.run.progress import progress

CONDITION_IGNORED = "condition_ignored"


def null_searches(inputs: ArmInputs, n_draws: int) -> dict[str, Int[np.ndarray, "draw k"]]:
    """Search the chosen SAE for as many latents as the edit has, on labels that mean nothing.

    inputs: CLIP with the chosen SAE, the latents to edit, the edit of params.yaml, and a seed.
    n_draws: number of searches of each null.
    Returns the latents of each search, by kind of search. A search that finds too few harmful latents is filled up with
    the next ones of its last ranking, so all find as many. No search is made if there is no edit.
    """
    if not len(inputs.chosen.latents) or not n_draws:
        return {}
    pairs = Pairs.from_images(inputs.spliced.data.table, "discovery")
    images = pairs.positions(inputs.spliced.data.audit_rows())
    candidates = candidate_latents(inputs.chosen.pooled, images, np.tile(pairs.women, len(CONDITIONS)))
    real = EditedEffects(inputs.spliced, pairs, inputs.edit, inputs.chosen.means, candidates)
    losing = inputs.chosen.judged
    draws = {kind: np.random.default_rng([inputs.seed, i]).spawn(n_draws) for i, kind in enumerate(NULLS)}

    def search(effects: Effects, *, twins: bool = True) -> np.ndarray:
        rank = partial(most_harmful, losing=losing, twins=twins)
        k = len(inputs.chosen.latents)
        found = find_step_by_step(effects, candidates, rank, n_per_step=inputs.edit.n_per_step, n_most=k)["latent"]
        rest = np.setdiff1d(candidates, found)[: k - len(found)]
        return np.concatenate([found.to_numpy(np.int64), rest])

    drawn = [(kind, rng) for kind, rngs in draws.items() for rng in rngs]
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in NULLS}
    for kind, rng in progress(drawn, "null searches"):
        found[kind].append(search(NULLS[kind](real, rng)))
    return {kind: np.stack(sets) for kind, sets in found.items()} | {CONDITION_IGNORED: search(real, twins=False)[None]}


def labels_swapped(real: EditedEffects, rng: np.random.Generator) -> Effects:
    """Return effects in which the two images of a pair change places, for women drawn at random."""
    women, woman = np.unique(real.pairs.women, return_inverse=True)
    swapped = rng.integers(0, 2, len(women)).astype(bool)[woman][:, None]

    def effects(edited: list[int]) -> ByCondition:
        a, b = (real(edited)[condition] for condition in CONDITIONS)
        return dict(zip(CONDITIONS, (np.where(swapped, b, a), np.where(swapped, a, b)), strict=True))

    return effects


def emotions_shuffled(real: EditedEffects, rng: np.random.Generator) -> Effects:
    """Return effects on R of an emotion that another of the woman's pairs shows, the same for both twins."""
    emotions = real.spliced.data.emotion_index(real.pairs.semi_nude)
    shuffled = emotions.copy()
    for woman in np.unique(real.pairs.women):
        own = np.flatnonzero(real.pairs.women == woman)
        shuffled[own] = rng.permutation(emotions[own])
    return real.about(np.tile(shuffled, len(CONDITIONS)))


def wrong_emotion(real: EditedEffects, rng: np.random.Generator) -> Effects:
    """Return effects on R of an emotion that is not the true one, drawn for each pair, the same for both twins."""
    emotions, n = real.spliced.data.emotion_index(real.pairs.semi_nude), len(real.spliced.data.emotions)
    wrong = (emotions + rng.integers(1, n, len(emotions))) % n
    return real.about(np.tile(wrong, len(CONDITIONS)))


NULLS: dict[str, Callable[[EditedEffects, np.random.Generator], Effects]] = {
    "labels_swapped": labels_swapped,
    "emotions_shuffled": emotions_shuffled,
    "wrong_emotion": wrong_emotion,
}


def judge(gains: pd.DataFrame, edit: dict[str, float]) -> dict[str, dict[str, float]]:
    """Compare the edit with the edits that the null searches found.

    gains: a row per search, from `outcomes_of_sets`, with its kind in the column search. edit: the gain of the edit
        under test on women held out, by endpoint (accuracy, R): rise in the losing condition.
    Returns for each kind of search: n (number of searches); and for each endpoint p_<endpoint> ((1 + number of searches
    with at least this gain) / (1 + n); not for the kind that ignores the condition, which is no null), and the median
    and the largest gain, and median cost, of the searches.
    """
    found = {}
    for kind, part in gains.groupby("search", sort=False):
        row: dict[str, float] = {"n": len(part)}
        for endpoint, gain in edit.items():
            of_searches = part[f"{endpoint}_gain"].to_numpy()
            if kind != CONDITION_IGNORED:
                row[f"p_{endpoint}"] = float((1 + (of_searches >= gain).sum()) / (1 + len(part)))
            row[f"median_{endpoint}_gain"] = float(np.median(of_searches))
            row[f"largest_{endpoint}_gain"] = float(of_searches.max())
            row[f"median_{endpoint}_cost"] = float(part[f"{endpoint}_cost"].median())
        found[str(kind)] = row
    return found

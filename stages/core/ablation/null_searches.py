"""Searches for latents on labels that mean nothing: what any such search finds, and how much it seems to gain.

Each search is the same step by step as that for the edit `ranked`, in the same SAE: it keeps the latents that gain on
discovery women, by its own labels. Its edit has as many latents as the edit under test, and is judged on the same
women, who were held out.

    labels_swapped       which twin counts as the losing one is drawn for each woman
    emotions_shuffled    R is about the emotion of another of the woman's pairs
    wrong_emotion        R is about an emotion, drawn for each pair, that is not the true one
    condition_ignored    latents are ranked and kept by their gain in both conditions. This is no null: it shows what
                         twins add. Nothing is drawn, so there is one such search
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from stages.core.ablation.arms import ArmInputs
from stages.core.data.dataset import Dataset
from stages.core.latents.edit_curve import Gains
from stages.core.latents.edited_effects import EditedEffects, candidate_latents
from stages.core.latents.edited_images import TRUE_LABELS, EditedImages, SearchLabels
from stages.core.latents.search import find_step_by_step, most_gaining
from stages.core.paired import Pairs
from stages.core.run.labels import CONDITIONS
from stages.core.run.progress import progress

SWAPPED, CONDITION_IGNORED = "labels_swapped", "condition_ignored"


def null_searches(inputs: ArmInputs, n_swapped: int, n_other: int) -> dict[str, Int[np.ndarray, "draw k"]]:
    """Search the chosen SAE for as many latents as the edit has, on labels that mean nothing.

    inputs: CLIP with the chosen SAE, the latents to edit, the edit of params.yaml, and a seed.
    n_swapped, n_other: number of searches on swapped labels, and of each other null.
    Returns the latents of each search, by kind of search. A search that keeps too few latents is filled up with those
    that it found and did not keep, and then with others, so all have as many. No search is made if there is no edit.
    """
    n_draws = {kind: n_swapped if kind == SWAPPED else n_other for kind in NULLS}
    if not len(inputs.chosen.latents) or not any(n_draws.values()):
        return {}
    spliced, edit, chosen = inputs.spliced, inputs.edit, inputs.chosen
    pairs, k = Pairs.from_images(spliced.data.table, "discovery"), len(chosen.latents)
    places = pairs.positions(spliced.data.audit_rows())
    candidates = candidate_latents(chosen.pooled, places, np.tile(pairs.women, len(CONDITIONS)))
    images = EditedImages(spliced, pairs, edit, chosen.means)
    real = EditedEffects(images, candidates)

    def search(labels: SearchLabels, *, twins: bool = True) -> Tensor:
        gains = Gains(images, chosen.judged, labels)
        rank = partial(most_gaining, losing=chosen.judged, twins=twins)
        found, kept = find_step_by_step(
            partial(real, labels=labels),
            candidates,
            rank,
            gains.accept if twins else gains.accept_in_both,
            n_per_step=edit.n_per_step,
            n_most=k,
        )
        rest = [*kept, *found["latent"].tolist(), *candidates.tolist()]
        return torch.tensor(list(dict.fromkeys(rest))[:k], device=spliced.clip.device)

    drawn = [
        (kind, rng)
        for i, kind in enumerate(NULLS)
        for rng in np.random.default_rng([inputs.seed, i]).spawn(n_draws[kind])
    ]
    mine = drawn[spliced.ranks.share(len(drawn))]
    found = [search(NULLS[kind](spliced.data, pairs, rng)) for kind, rng in progress(mine, "null searches")]
    none = torch.zeros(0, k, dtype=torch.int64, device=spliced.clip.device)
    whole = spliced.ranks.joined(torch.stack(found) if found else none)
    sets = whole.cpu().numpy()
    by_kind = {kind: sets[[name == kind for name, _ in drawn]] for kind in NULLS if n_draws[kind]}
    return by_kind | {CONDITION_IGNORED: search(TRUE_LABELS, twins=False)[None].cpu().numpy()}


def labels_swapped(data: Dataset, pairs: Pairs, rng: np.random.Generator) -> SearchLabels:
    """Return labels in which the two images of a pair change places, for women drawn at random."""
    women, woman = np.unique(pairs.women, return_inverse=True)
    return SearchLabels(swapped=rng.integers(0, 2, len(women)).astype(bool)[woman])


def emotions_shuffled(data: Dataset, pairs: Pairs, rng: np.random.Generator) -> SearchLabels:
    """Return labels in which both twins have the emotion that another of the woman's pairs shows."""
    emotions = data.emotion_index(pairs.semi_nude)
    shuffled = emotions.copy()
    for woman in np.unique(pairs.women):
        own = np.flatnonzero(pairs.women == woman)
        shuffled[own] = rng.permutation(emotions[own])
    return SearchLabels(emotions=np.tile(shuffled, len(CONDITIONS)))


def wrong_emotion(data: Dataset, pairs: Pairs, rng: np.random.Generator) -> SearchLabels:
    """Return labels in which both twins have an emotion that is not the true one, drawn for each pair."""
    emotions, n = data.emotion_index(pairs.semi_nude), len(data.emotions)
    wrong = (emotions + rng.integers(1, n, len(emotions))) % n
    return SearchLabels(emotions=np.tile(wrong, len(CONDITIONS)))


NULLS: dict[str, Callable[[Dataset, Pairs, np.random.Generator], SearchLabels]] = {
    SWAPPED: labels_swapped,
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

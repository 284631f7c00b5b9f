"""Matched control sets: random sets of other latents that are like the chosen ones, and the p-value against them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from stages.core.run.errors import StudyError

NEAREST_PER_LATENT = 4  # a control is drawn among so many like latents for each one chosen, to keep it alike
LOG_FLOOR = 1e-6  # keeps the logarithm of a silent latent finite


class ControlsError(StudyError):
    """There are too few latents to draw control sets from. The message names the keys to change."""


def matched_control_sets(
    chosen: Int[np.ndarray, " k"], tests: pd.DataFrame, n_sets: int, seed: int
) -> Int[np.ndarray, "n_sets k"]:
    """Draw random sets of latents that are like the chosen latents in firing rate and in mean activation.

    Firing rates and mean activations are compared on a log scale. No set holds a chosen latent.

    chosen: indices of the chosen latents.
    tests: a row per latent of the SAE. Columns:
        firing        share of tokens on which the latent is active
        mean_cls      mean activation on the class token
        mean_patch    mean activation on patches
    n_sets: number of sets.
    Returns one set of latent indices per row, each as large as `chosen`.
    Raises ControlsError if fewer other latents ever fire than there are chosen latents.
    """
    if not len(chosen):
        return np.zeros((n_sets, 0), dtype=np.int64)
    profile = np.log(tests[["firing", "mean_cls", "mean_patch"]].to_numpy() + LOG_FLOOR)
    profile[tests["firing"] == 0] = np.nan
    return matched_sets(chosen, profile, n_sets, seed)


def matched_sets(
    chosen: Int[np.ndarray, " k"], profile: Float[np.ndarray, "latent feature"], n_sets: int, seed: int
) -> Int[np.ndarray, "n_sets k"]:
    """Draw random sets of latents that are like the chosen latents in `profile`.

    Each feature of the profile is standardised. For each of the k chosen latents, one latent is drawn at random from
    the 4 k nearest latents that are not chosen. No set uses a latent twice. A latent whose profile is not finite is
    never drawn.

    chosen: indices of the chosen latents.
    profile: the features in which the latents must be alike, such as log firing rate. A row per latent of the SAE.
    n_sets: number of sets.
    Returns one set of latent indices per row, each as large as `chosen`.
    Raises ControlsError if fewer other latents have a finite profile than there are chosen latents.
    """
    usable = np.isfinite(profile).all(1)
    centre, spread = profile[usable].mean(0), profile[usable].std(0)
    standard = (profile - centre) / np.where(spread > 0, spread, 1)
    others = np.setdiff1d(np.flatnonzero(usable), chosen)
    if len(others) < len(chosen):
        raise ControlsError(
            f"{len(others)} other latents ever fire, too few to draw control sets for {len(chosen)} chosen ones; lower "
            "edit.n_latents, or raise grid.expansions"
        )
    n_near = min(len(others), NEAREST_PER_LATENT * len(chosen))
    rng = np.random.default_rng(seed)
    distance = np.linalg.norm(standard[others][None] - standard[chosen][:, None], axis=-1)
    near = others[np.argsort(distance, axis=1, kind="stable")[:, :n_near]]
    return np.stack([_one_set(near, rng) for _ in range(n_sets)])


def _one_set(near: Int[np.ndarray, "k n_near"], rng: np.random.Generator) -> Int[np.ndarray, " k"]:
    taken: list[int] = []
    for row in near[rng.permutation(len(near))]:
        free = row[~np.isin(row, taken)]
        taken.append(int(rng.choice(free)))
    return np.array(taken, dtype=np.int64)


def control_p(effect: float, controls: Float[np.ndarray, " n"]) -> float:
    """Compute the one-sided p-value of the edit's effect against the effects of control sets.

    A control set is a random set of latents, edited instead of the chosen latents.

    effect: the effect of the edit under test. A larger effect is a stronger one.
    controls: the effect of the edit of each control set.
    Returns (1 + number of controls at least as large) / (1 + number of controls).
    """
    return float((1 + (controls >= effect).sum()) / (1 + len(controls)))

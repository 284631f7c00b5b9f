"""Control sets: random sets of latents that are like the edited set in all totals, and the p-value against them.

The edit of many active, strong latents does more than the edit of a few quiet ones, whatever the latents mean. So a
control set must have the totals of the edited set (`set_totals.py`). It is drawn at random from all sets of as many
active latents with nearly these totals: start from any set, exchange one latent at a time, and take an exchange more
often the nearer it brings the totals (Metropolis). A set that was drawn blind is then like its own control sets, so its
p is at most .05 in about 5 % of draws (`tests/bench/controls.py`).

The edited latents may be in a control set, at most half of them. Without them, no control set could act on R as much:
in the default run, 25 of 439 active latents have 71 % of all contributions. With all of them it would be no other set.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from stages.core.ablation.set_totals import SetTotals
from stages.core.run.errors import StudyError
from stages.core.run.progress import progress

TOLERANCE = 0.01  # standard deviation of the logarithm of each total around that of the edited set: about 1 %
EXCHANGES = 10_000  # tried for each set
WARM_UP = 0.5  # share of the exchanges in which the tolerance falls from a hundredfold to its value
ALIKE = 0.05  # largest difference of the median control set from the edited set, as a share
EDITED_LATENTS = "edited_latents"

Distance = Callable[[Float[np.ndarray, "set quantity"]], Float[np.ndarray, " set"]]
Step = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


class ControlsError(StudyError):
    """There are too few latents to draw control sets from. The message names the keys to change."""


def control_sets(
    edited: Int[np.ndarray, " k"], totals: SetTotals, n_sets: int, seed: int
) -> Int[np.ndarray, "n_sets k"]:
    """Draw random sets of latents whose totals are nearly those of the edited set.

    edited: indices of the edited latents. All are in the pool of `totals`.
    totals: what each latent of the pool adds to the totals of a set.
    n_sets: number of sets. seed: seed of the draws.
    Returns one set of latent indices per row, each as large as `edited`. No set holds a latent twice.
    Raises ControlsError if the pool has fewer other latents than are edited.
    """
    goals = np.tile(np.searchsorted(totals.latents, edited), (n_sets, 1))
    return totals.latents[sets_like(goals, totals, seed)] if len(edited) else goals


def sets_like(goals: Int[np.ndarray, "set k"], totals: SetTotals, seed: int) -> Int[np.ndarray, "set k"]:
    """Draw for each set of latents another one with nearly the same totals.

    A set has the probability exp(-d / 2), up to a factor, with d the sum over quantities of
    (log(total / total of the goal) / TOLERANCE)^2. It holds at most half of the latents of the goal.

    goals: a set per row. In sets, a latent is named by its position in the pool of `totals`.
    totals: what each latent of the pool adds to the totals of a set.
    Returns a set per row. Raises ControlsError if the pool has fewer other latents than a goal.
    """
    n, k = goals.shape
    rng, own = np.random.default_rng(seed), np.zeros((n, len(totals.latents)), bool)
    each: np.ndarray = np.arange(n)
    own[each[:, None], goals] = True
    sets, distance, step = _start(own, k, rng), _distance_to(goals, totals), _steps(totals)
    state = totals.with_squares(sets)
    now = distance(state)
    for tolerance in progress(_tolerances(), "control sets"):
        slot = rng.integers(k, size=(n,))
        old = sets[each, slot]
        new, inside = step(old, rng)
        proposed = state + totals.exchanged(sets, old, new)
        then = distance(proposed)
        held = own[each[:, None], sets].sum(1) - own[each, old] + own[each, new].astype(int)
        taken = inside & ~(sets == new[:, None]).any(1) & (held <= k // 2)
        taken &= np.log1p(-rng.random(n)) < (now - then) / (2 * tolerance**2)
        sets[each[taken], slot[taken]] = new[taken]
        state[taken], now[taken] = proposed[taken], then[taken]
    return sets


def _start(own: Bool[np.ndarray, "set pool"], k: int, rng: np.random.Generator) -> Int[np.ndarray, "set k"]:
    """Draw sets from all latents of the pool that are not in the goal, each with the same probability."""
    n_other = own.shape[1] - k
    if n_other < k:
        raise ControlsError(
            f"{n_other} other latents act on the readout, too few to draw control sets for {k} edited ones; lower "
            "edit.n_latents, or raise grid.expansions"
        )
    return np.stack([rng.choice(np.flatnonzero(~row), k, replace=False) for row in own])


def _steps(totals: SetTotals) -> Step:
    """Return a function that proposes for each latent another one, from near and far in the order of contribution.

    The number of places between the two is drawn log-uniformly, so that a strong latent often gives way to a strong
    one. A step and the step back are equally probable. The function also tells which steps stay inside the order.
    """
    order, n_pool = np.argsort(totals.sums["contribution"], kind="stable"), len(totals.latents)
    place = np.argsort(order)

    def step(old: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        size = np.floor(n_pool ** rng.random(len(old))).astype(int)
        to = place[old] + size * rng.choice([-1, 1], len(old))
        return order[to.clip(0, n_pool - 1)], (to >= 0) & (to < n_pool)

    return step


def _tolerances() -> Float[np.ndarray, " exchange"]:
    """Return the tolerance of each exchange in turn: it falls in the warm-up, and is `TOLERANCE` after it."""
    done = np.arange(EXCHANGES) / EXCHANGES
    return TOLERANCE * np.maximum(1.0, 100 ** (1 - done / WARM_UP))


def _distance_to(goals: Int[np.ndarray, "set k"], totals: SetTotals) -> Distance:
    """Return a function from totals to the squared distance of their logarithms from those of the goals.

    The function takes totals with squared lengths. A small total is added to each, so that none is 0.
    """
    wanted, small = totals.of_sets(goals), totals.small(goals.shape[1])

    def distance(state: np.ndarray) -> np.ndarray:
        return np.square(np.log((totals.rooted(state) + small) / (wanted + small))).sum(1)

    return distance


def compare(
    edited: Int[np.ndarray, " k"], sets: Int[np.ndarray, "set k"], totals: SetTotals
) -> dict[str, dict[str, float]]:
    """Compare the totals of the edited set with those of its control sets.

    Returns for each quantity of `SetTotals`:
        edited               total of the edited set
        low, median, high    5 %, 50 % and 95 % quantile over control sets
        rank                 place of the edited set among the control sets, from 1: the smallest total
        difference           (median - edited) / edited; next to nothing is added to the denominator, so it is not 0
    and for edited_latents, the number of edited latents in a set, the same without the difference.
    Returns no quantity if there are no control sets.
    """
    if not sets.size:
        return {}
    goal, found = (totals.of_sets(np.searchsorted(totals.latents, some)) for some in (edited[None], sets))
    compared = {name: _place(goal[0, i], found[:, i]) for i, name in enumerate(totals.names)}
    for row, small in zip(compared.values(), totals.small(len(edited)), strict=True):
        row["difference"] = (row["median"] - row["edited"]) / (row["edited"] + float(small))
    return compared | {EDITED_LATENTS: _place(len(edited), np.isin(sets, edited).sum(1))}


def _place(own: float, values: np.ndarray) -> dict[str, float]:
    low, median, high = np.quantile(values, (0.05, 0.5, 0.95)).tolist()
    return {"edited": float(own), "low": low, "median": median, "high": high, "rank": 1 + int((values < own).sum())}


def alike(compared: dict[str, dict[str, float]]) -> bool:
    """Tell whether control sets are like the edited set: in each quantity, the median is at most 5 % away (`ALIKE`).

    compared: what `compare` found.
    """
    return all(abs(found["difference"]) <= ALIKE for found in compared.values() if "difference" in found)


def control_p(effect: float, controls: Float[np.ndarray, " n"]) -> float:
    """Compute the one-sided p-value of the edit's effect against the effects of control sets.

    A control set is a random set of latents, edited instead of the chosen latents.

    effect: the effect of the edit under test. A larger effect is a stronger one.
    controls: the effect of the edit of each control set.
    Returns (1 + number of controls at least as large) / (1 + number of controls).
    """
    return float((1 + (controls >= effect).sum()) / (1 + len(controls)))

"""Two lists of latents, never mixed.

perception   activation differs by condition: such a latent sees clothing, which is no bias
bias         its effect on the emotion readout differs by condition, to the harm of semi-nude women, by more
             than a smallest effect worth naming: with enough women any two conditions differ by something

Bias latents are found step by step. Where several latents carry a bias, one hides what another does: with the readout
saturated by the first, the gradient through the second is nearly nothing. So the most harmful ones are edited and the
rest is tested again with that edit in place, until none is significant. Where there is no bias, the first step is all
there is, and its family-wise error (max-T over latents) is that of the list; each later step is taken only after the
one before it has found something, and is tested at the same rate.

Both lists are tables, strongest or first found at the top: latent, step, and of the quantity that defines the list
(activation gap; effect gap in nats at that step) mean, low, high, p_max_t.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from stages.core import paired
from stages.core.sections import Inference

COLUMNS = ["latent", "step", "mean", "low", "high", "p_max_t"]
REMEDY = "rerun `dvc repro --force analyse_sae select_sae`"


class LatentsError(SystemExit):
    """A table of latents on disk that cannot be used. Exits with its path, the reason and the remedy."""


def load(fpath: Path) -> pd.DataFrame:
    """A list as written. Raises LatentsError."""
    return read_table(fpath, COLUMNS).astype({"latent": np.int64, "step": np.int64})


def read_table(fpath: Path, columns: list[str]) -> pd.DataFrame:
    """A table with a row per latent. Raises LatentsError unless there are these columns, with finite numbers in them;
    latents and steps are whole."""
    try:
        table = pd.read_csv(fpath)
        numbers = table[columns].to_numpy(dtype=np.float64)
        counted = table[[name for name in ("latent", "step") if name in columns]].to_numpy(dtype=np.float64)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LatentsError(f"{fpath} is missing or damaged ({error}); {REMEDY}") from None
    whole = (counted >= 0) & (counted < 2**31) & (counted % 1 == 0)
    if not np.isfinite(numbers).all() or not whole.all():
        raise LatentsError(f"{fpath} holds values that are not finite, or latents and steps not whole; {REMEDY}")
    return table


def perception(tests: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Latents whose activation is higher on the semi-nude twin, the largest rise first.

    tests: `paired.paired_tests` of activations, columns prefixed `act_`, with `latent`.
    """
    found = tests[(tests["act_p_max_t"] <= alpha) & (tests["act_mean"] > 0)].sort_values("act_mean", ascending=False)
    own = found.filter(like="act_").rename(columns=lambda name: name.removeprefix("act_"))
    return own.assign(latent=found["latent"], step=1)[COLUMNS].reset_index(drop=True)


def bias(
    effect_gaps: Callable[[list[int]], Float[np.ndarray, "pair latent"]],
    clusters: np.ndarray,
    inference: Inference,
    *,
    n_per_step: int,
    n_most: int,
) -> pd.DataFrame:
    """Latents that harm semi-nude women, found step by step, the most harmful of a step first.

    effect_gaps(edited): effect of every latent, semi-nude minus clothed twin, nats, with `edited` latents edited.
    """
    steps: list[pd.DataFrame] = []
    edited: list[int] = []
    while len(edited) < n_most:
        gaps = effect_gaps(edited)
        gaps[:, edited] = 0
        new = harmful(gaps, clusters, inference)[: min(n_per_step, n_most - len(edited))]
        if new.empty:
            break
        steps.append(new.assign(step=len(steps) + 1))
        edited += new["latent"].tolist()
    return pd.concat(steps, ignore_index=True)[COLUMNS] if steps else pd.DataFrame(columns=COLUMNS)


def best_edit(curve: pd.DataFrame, clothed_cost: float) -> pd.Series:
    """The row with the largest net gain of those that edit latents and cost clothed women no more accuracy than given.

    curve: a row per number of latents edited, none in the first, with n_latents, net_gain (nats) and
    clothed_accuracy_loss. If no edit is within the cost, the first row.
    """
    allowed = curve[(curve["n_latents"] > 0) & (curve["clothed_accuracy_loss"] <= clothed_cost)]
    return curve.loc[allowed["net_gain"].idxmax() if len(allowed) else curve.index[0]]


def harmful(gaps: Float[np.ndarray, "pair latent"], clusters: np.ndarray, inference: Inference) -> pd.DataFrame:
    """Latents whose effect is lower on the semi-nude twin, by more than `min_effect` with the whole interval."""
    p_max_t = paired.max_t(gaps, clusters, inference.n_permutations, inference.seed)
    mean = gaps.mean(0)
    candidates = np.flatnonzero((p_max_t <= inference.alpha) & (mean < -inference.min_effect))
    low, high = paired.bootstrap_interval(gaps[:, candidates], clusters, **inference.bootstrap)
    table = pd.DataFrame(
        {"latent": candidates, "mean": mean[candidates], "low": low, "high": high, "p_max_t": p_max_t[candidates]}
    )
    return table[table["high"] < -inference.min_effect].sort_values("mean", ignore_index=True)

"""Two lists of latents, never mixed, and how they are kept on disk.

perception   the latent's activation differs by condition: it sees clothing, which is no bias
bias         its effect on the emotion readout differs by condition, to the harm of semi-nude women, by more than the
             smallest effect worth naming (`latents/search.py`)

Both lists are tables, strongest or first found at the top: latent, step, and of the quantity that defines the list
(gap in activation; gap in effect at that step, nats) mean, low, high, p_max_t.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from stages.core.run.errors import StudyError

COLUMNS = ["latent", "step", "mean", "low", "high", "p_max_t"]
REMEDY = "rerun `dvc repro --force analyse_sae select_sae`"


class LatentsError(StudyError):
    """A table of latents on disk cannot be used. The message names its path, the reason and the remedy."""


def load(fpath: Path) -> pd.DataFrame:
    """Read a list of latents. Raises LatentsError."""
    return read_table(fpath, COLUMNS).astype({"latent": np.int64, "step": np.int64})


def read_table(fpath: Path, columns: list[str]) -> pd.DataFrame:
    """Read a table with a row per latent.

    Raises LatentsError unless it has these columns, with finite numbers in them; latents and steps are whole.
    """
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


def perception_latents(tests: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """List the latents whose activation is higher on the semi-nude twin, the largest rise first.

    tests: `paired.paired_tests` of activation gaps, columns prefixed `act_`, with `latent`.
    """
    found = tests[(tests["act_p_max_t"] <= alpha) & (tests["act_mean"] < 0)].sort_values("act_mean")
    own = found.filter(like="act_").rename(columns=lambda name: name.removeprefix("act_"))
    return own.assign(latent=found["latent"], step=1)[COLUMNS].reset_index(drop=True)


def best_edit(curve: pd.DataFrame, clothed_cost: float) -> pd.Series:
    """The row of `curve` with the largest net gain, of those that cost clothed women no more than `clothed_cost`.

    curve: a row per number of latents edited, none in the first, with n_latents, net_gain (nats) and
    clothed_accuracy_loss. If no edit is within the cost, the first row.
    """
    allowed = curve[(curve["n_latents"] > 0) & (curve["clothed_accuracy_loss"] <= clothed_cost)]
    return curve.loc[allowed["net_gain"].idxmax() if len(allowed) else curve.index[0]]

"""Two lists of latents, never mixed, and how they are kept on disk.

perception   the latent's activation differs by condition: it sees clothing, which is no bias
bias         it harms the emotion readout in the condition that CLIP reads worse (the losing one), and more so than in
             the other, both by more than the smallest effect worth naming (`latents/search.py`)

Both lists are tables with a row per latent, strongest or first found at the top. Columns:
    latent           index of the latent in its SAE
    step             step of the search that found it, from 1
    mean, low, high  mean gap and its interval. List `perception`: gap of the activation, clothed minus semi-nude twin.
                     List `bias`: gap of the effect at that step (nats), other condition minus losing one
    p_max_t          family-wise p of this gap

The latents of an edit have the same columns. Those of a `ranked` edit are not tested: mean is their first-order net
gain at that step (nats), low and high equal it, and p_max_t is 1.
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
    """Read a list of latents from a CSV file, a row per latent. Columns:

        latent             index of the latent in its SAE
        step               step of the search that found the latent, from 1
        mean, low, high    mean gap of the latent's activation or of its effect on the emotion readout, depending on
                           the list (see the top of this module); and the interval of this mean
        p_max_t            family-wise p of this gap

    Raises LatentsError if the file is missing or damaged, if a column is absent, or if a value is not a finite number.
    """
    return read_table(fpath, COLUMNS).astype({"latent": np.int64, "step": np.int64})


def read_table(fpath: Path, columns: list[str]) -> pd.DataFrame:
    """Read a table with a row per latent from a CSV file.

    columns: names of columns that the table must have; it may have more.
    Raises LatentsError if the file is missing or damaged, or if one of these columns is absent. Raises LatentsError too
    if a value in these columns is not a finite number, or a latent or step is not a whole number from 0 on.
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
    """List the latents whose activation is significantly higher on the semi-nude twin, the largest rise first.

    tests: a row per latent. Its activation gap is the activation on the clothed twin minus that on the semi-nude twin.
        Columns: latent (index), act_mean, act_low, act_high (mean gap and its interval), act_p_max_t (family-wise p).
    alpha: largest family-wise p of a listed latent.
    Returns a row per listed latent. Columns: latent (index), step (always 1), mean, low, high (mean activation gap,
    below 0, and its interval), p_max_t (family-wise p).
    """
    found = tests[(tests["act_p_max_t"] <= alpha) & (tests["act_mean"] < 0)].sort_values("act_mean")
    own = found.filter(like="act_").rename(columns=lambda name: name.removeprefix("act_"))
    return own.assign(latent=found["latent"], step=1)[COLUMNS].reset_index(drop=True)

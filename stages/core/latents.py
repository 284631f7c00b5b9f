"""Two lists of latents, never mixed.

perception   activation differs by condition: such a latent sees clothing, which is no bias
bias         its effect on the emotion readout differs by condition, to the harm of semi-nude women

Both are read off the table of `paired.paired_tests` per latent, columns prefixed `act_` and `eff_`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Int

Kind = Literal["bias", "perception"]


def ranked(tests: pd.DataFrame, kind: Kind, alpha: float) -> Int[np.ndarray, " k"]:
    """Family-wise significant latents of a list, strongest first.

    bias: effect lower on the semi-nude twin, the most harmful first (mean effect in nats).
    perception: activation higher on the semi-nude twin, the largest rise first.
    """
    if kind == "bias":
        found = tests[(tests["eff_p_max_t"] <= alpha) & (tests["eff_mean"] < 0)].sort_values("eff_mean")
    else:
        found = tests[(tests["act_p_max_t"] <= alpha) & (tests["act_mean"] > 0)].sort_values(
            "act_mean", ascending=False
        )
    return found["latent"].to_numpy()

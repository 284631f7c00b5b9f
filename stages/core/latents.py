"""Two lists of latents, never mixed.

perception   activation differs by condition: such a latent sees clothing, which is no bias
bias         its effect on the emotion readout differs by condition, to the harm of semi-nude women, by more
             than a smallest effect worth naming: with enough women any two conditions differ by something

Both are read off the table of `paired.paired_tests` per latent, columns prefixed `act_` and `eff_`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Int

from stages.core.params import LatentList


def ranked(tests: pd.DataFrame, kind: LatentList, alpha: float, min_effect: float) -> Int[np.ndarray, " k"]:
    """Latents of a list, strongest first; all significant at the family-wise error `alpha`.

    bias: effect lower on the semi-nude twin, its whole interval by more than `min_effect` (nats); most harmful first.
    perception: activation higher on the semi-nude twin, the largest rise first.
    """
    if kind == "bias":
        found = tests[(tests["eff_p_max_t"] <= alpha) & (tests["eff_high"] < -min_effect)].sort_values("eff_mean")
    else:
        found = tests[(tests["act_p_max_t"] <= alpha) & (tests["act_mean"] > 0)].sort_values(
            "act_mean", ascending=False
        )
    return found["latent"].to_numpy()

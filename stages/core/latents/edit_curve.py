"""How many latents to edit: edits of the first k latents of a ranking, and the choice among them.

gain            rise of R (log-probability of the true emotion, nats) or of accuracy in the losing condition
net gain        gain in R minus the absolute change of R in the other condition
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.spliced_clip import SplicedClip
from stages.core.paired import Pairs
from stages.core.run.labels import OTHER_CONDITION
from stages.core.schema import Edit


def edit_sizes(edit: Edit, n_ranked: int) -> list[int]:
    """Return the numbers of latents to try: 0, those of `edit.curve` that are ranked, and as many as may be edited.

    edit: the numbers on the curve (`curve`), and the largest number of latents to edit (`n_latents`).
    n_ranked: number of ranked latents.
    """
    most = min(edit.n_latents, n_ranked)
    return [0, *sorted({min(k, most) for k in (*edit.curve, most)} - {0})]


def edit_curve(
    spliced: SplicedClip,
    pairs: Pairs,
    losing: str,
    ranked: Int[np.ndarray, " k"],
    edit: Edit,
    means: Float[np.ndarray, "2 d_sae"],
) -> pd.DataFrame:
    """Edit the first k latents of a ranking, for several k, and measure what each edit gives and costs.

    spliced: CLIP with the SAE, and the images.
    pairs: the pairs to measure on: those of the women used for choosing.
    losing: the condition that is read worse.
    ranked: indices of latents, the first to edit first.
    edit: how the latents are edited, and the numbers to try.
    means: mean activation of every latent, on the class token (row 0) and on patches (row 1), for edits to the mean.
    Returns a row per k. R is the log-probability of the true emotion, mean over images, nats:
        n_latents                k
        R_losing, R_other        R in the losing and in the other condition, with the edit
        gain                     rise of R in the losing condition, against k = 0
        other_change             change of R in the other condition, against k = 0
        net_gain                 gain - |other_change|
        accuracy_gain            rise of accuracy in the losing condition, against k = 0
        other_accuracy_loss      fall of accuracy in the other condition, against k = 0
    """
    sizes = edit_sizes(edit, len(ranked))
    changes = [LatentEdit.from_params(edit, ranked[:k], means, spliced.clip.device) for k in sizes]
    outcomes = spliced.outcomes(pairs.rows, [spliced.edit_arm(change, edit.scope) for change in changes])
    R, correct = (
        {condition: values.mean(1) for condition, values in pairs.split(found).items()}
        for found in (outcomes.R, outcomes.correct)
    )
    other = OTHER_CONDITION[losing]
    gain, other_change = (R[condition] - R[condition][0] for condition in (losing, other))
    return pd.DataFrame(
        {
            "n_latents": sizes,
            "R_losing": R[losing],
            "R_other": R[other],
            "gain": gain,
            "other_change": other_change,
            "net_gain": gain - np.abs(other_change),
            "accuracy_gain": correct[losing] - correct[losing][0],
            "other_accuracy_loss": correct[other][0] - correct[other],
        }
    )


def best_edit(curve: pd.DataFrame, max_cost: float) -> pd.Series:
    """Choose the number of latents to edit: the row with the largest net gain among the edits that help.

    An edit helps if its net gain in R is above zero, if it does not lower accuracy in the losing condition, and if it
    costs at most `max_cost` of accuracy in the other condition.

    curve: a row per number of latents edited, from `edit_curve`; the first row edits none.
    max_cost: largest loss of accuracy in the other condition, between 0 and 1.
    Returns one row of `curve`; the first row if no edit helps.
    """
    helps = ((curve["net_gain"] > 0) & (curve["accuracy_gain"] >= 0) & (curve["other_accuracy_loss"] <= max_cost)) & (
        curve["n_latents"] > 0
    )
    return curve.loc[curve["net_gain"].where(helps).idxmax() if helps.any() else curve.index[0]]

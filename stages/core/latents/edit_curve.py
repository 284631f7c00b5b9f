"""How many latents to edit: edits of the first k latents of a ranking, and the choice among them.

gain            rise of R (log-probability of the true emotion, nats) or of accuracy in the losing condition
net gain        gain in R minus the absolute change of R in the other condition
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from stages.core.latents.edited_images import TRUE_LABELS, EditedImages, SearchLabels
from stages.core.run.labels import OTHER_CONDITION
from stages.core.schema import Edit

MeanByCondition = dict[str, float]


def edit_sizes(edit: Edit, n_ranked: int) -> list[int]:
    """Return the numbers of latents to try: 0, those of `edit.curve` that are ranked, and as many as may be edited.

    edit: the numbers on the curve (`curve`), and the largest number of latents to edit (`n_latents`).
    n_ranked: number of ranked latents.
    """
    most = min(edit.n_latents, n_ranked)
    return [0, *sorted({min(k, most) for k in (*edit.curve, most)} - {0})]


@dataclass(frozen=True)
class Gains:
    """What edits of some latents give and cost on the women used for choosing. Each set of latents is measured once.

    images: the images to measure on, how latents are edited, the numbers to try, and the largest loss of accuracy in
        the other condition.
    losing: the condition that is read worse.
    labels: what counts as the emotion of an image, and as the losing twin; the truth if not given.
    """

    images: EditedImages
    losing: str
    labels: SearchLabels = TRUE_LABELS
    _measured: dict[tuple[int, ...], tuple[MeanByCondition, MeanByCondition]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def measure(self, latents: Iterable[int]) -> dict[str, float]:
        """Edit some latents, and compare with no edit.

        latents: indices of the latents.
        Returns these numbers, where R is the log-probability of the true emotion, mean over images, nats:
            n_latents                number of latents
            R_losing, R_other        R in the losing and in the other condition, with the edit
            gain                     rise of R in the losing condition
            other_change             change of R in the other condition
            net_gain                 gain - |other_change|
            accuracy_gain            rise of accuracy in the losing condition
            other_accuracy_loss      fall of accuracy in the other condition
        """
        edited = tuple(sorted(int(latent) for latent in latents))
        losing, other = self.losing, OTHER_CONDITION[self.losing]
        (R, correct), (R_before, correct_before) = self._means(edited), self._means(())
        gain, other_change = (R[condition] - R_before[condition] for condition in (losing, other))
        return {
            "n_latents": len(edited),
            "R_losing": R[losing],
            "R_other": R[other],
            "gain": gain,
            "other_change": other_change,
            "net_gain": gain - abs(other_change),
            "accuracy_gain": correct[losing] - correct_before[losing],
            "other_accuracy_loss": correct_before[other] - correct[other],
        }

    def accept(self, edited: list[int], more: list[int]) -> bool:
        """Return whether to edit more latents: they add net gain, and the edit costs no more than `edit.max_cost`.

        edited: indices of the latents that are edited. more: indices of the latents to add.
        """
        before, after = self.measure(edited), self.measure([*edited, *more])
        return after["net_gain"] > before["net_gain"] and after["other_accuracy_loss"] <= self.images.edit.max_cost

    def accept_in_both(self, edited: list[int], more: list[int]) -> bool:
        """Return whether more latents raise R, mean over both conditions: which of them loses does not matter.

        edited: indices of the latents that are edited. more: indices of the latents to add.
        """
        before, after = self.measure(edited), self.measure([*edited, *more])
        return after["R_losing"] + after["R_other"] > before["R_losing"] + before["R_other"]

    def curve(self, ranked: list[int]) -> pd.DataFrame:
        """Edit the first k latents of a ranking, for several k.

        ranked: indices of latents, the first to edit first.
        Returns a row per k, from 0, with the numbers of `measure` as columns.
        """
        return pd.DataFrame([self.measure(ranked[:k]) for k in edit_sizes(self.images.edit, len(ranked))])

    def _means(self, latents: tuple[int, ...]) -> tuple[MeanByCondition, MeanByCondition]:
        if latents not in self._measured:
            self._measured[latents] = self.images.readout(list(latents), self.labels)
        return self._measured[latents]


def best_edit(curve: pd.DataFrame, max_cost: float) -> pd.Series:
    """Choose the number of latents to edit: the row with the largest net gain among the edits that help.

    An edit helps if its net gain in R is above zero, if it does not lower accuracy in the losing condition, and if it
    costs at most `max_cost` of accuracy in the other condition.

    curve: a row per number of latents edited, from `Gains.curve`; the first row edits none.
    max_cost: largest loss of accuracy in the other condition, between 0 and 1.
    Returns one row of `curve`; the first row if no edit helps.
    """
    helps = ((curve["net_gain"] > 0) & (curve["accuracy_gain"] >= 0) & (curve["other_accuracy_loss"] <= max_cost)) & (
        curve["n_latents"] > 0
    )
    return curve.loc[curve["net_gain"].where(helps).idxmax() if helps.any() else curve.index[0]]

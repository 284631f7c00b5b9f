"""How many latents are edited: the number that gains most, and none that hurts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stages.core.latents.edit_curve import Gains, best_edit, edit_sizes
from stages.core.latents.edited_images import EditedImages, SearchLabels
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.spliced_clip import original
from stages.core.paired import Pairs
from stages.core.run.labels import CLOTHED, SEMI_NUDE
from stages.core.schema import Edit

EDIT = Edit.model_construct(kind="zero", factor=0.0, scope="all", n_latents=8, curve=[1, 2, 4, 99], max_cost=1.0)


def curve(**columns: list[float]) -> pd.DataFrame:
    given = {"accuracy_gain": 0.1, "other_accuracy_loss": 0.0} | columns
    return pd.DataFrame({"n_latents": [0, 4, 8], **given})


def test_the_edit_taken_gains_most_of_those_within_the_cost():
    costly = curve(net_gain=[0.0, 1.0, 2.0], other_accuracy_loss=[0.0, 0.01, 0.03])
    assert best_edit(costly, 0.05)["n_latents"] == 8
    assert best_edit(costly, 0.02)["n_latents"] == 4
    assert best_edit(costly, 0.0)["n_latents"] == 0
    assert best_edit(costly[:1], 0.0)["n_latents"] == 0


def test_no_edit_is_taken_that_hurts():
    assert best_edit(curve(net_gain=[0.0, -0.1, -0.2]), 1.0)["n_latents"] == 0
    falling = curve(net_gain=[0.0, 1.0, 2.0], accuracy_gain=[0.0, 0.0, -0.28])  # R rises while the argmax falls
    assert best_edit(falling, 1.0)["n_latents"] == 4


def test_sizes_end_with_as_many_as_may_be_edited():
    assert edit_sizes(EDIT, 6) == [0, 1, 2, 4, 6]
    assert edit_sizes(EDIT, 20) == [0, 1, 2, 4, 8]
    assert edit_sizes(EDIT, 0) == [0]


@pytest.mark.parametrize("losing", [SEMI_NUDE, CLOTHED])
def test_gains_are_counted_in_the_losing_condition_and_changes_in_the_other(spliced, losing):
    pairs, ranked = Pairs.from_images(spliced.data.table, "discovery"), np.array([3, 17, 40])
    gains = Gains(EditedImages(spliced, pairs, EDIT, np.zeros((2, 64))), losing)
    found = gains.curve(ranked.tolist())
    device = spliced.clip.device
    arm = spliced.edit_arm(LatentEdit.from_params(EDIT, ranked, np.zeros((2, 64)), device), "all")
    outcomes = spliced.outcomes(pairs.rows, [original, arm])
    R, correct = pairs.split(outcomes.R), pairs.split(outcomes.correct)
    other = CLOTHED if losing == SEMI_NUDE else SEMI_NUDE
    last = found.iloc[-1]
    assert last["n_latents"] == 3
    assert last["gain"] == pytest.approx((R[losing][1] - R[losing][0]).mean())
    assert last["net_gain"] == pytest.approx(last["gain"] - abs((R[other][1] - R[other][0]).mean()))
    assert last["accuracy_gain"] == pytest.approx((correct[losing][1] - correct[losing][0]).mean())
    assert last["other_accuracy_loss"] == pytest.approx((correct[other][0] - correct[other][1]).mean())


class Told(EditedImages):
    """Images that are read as a table says, by the latents edited: R and accuracy of semi-nude and clothed images."""

    def __init__(self, **table: tuple[float, float, float, float]) -> None:
        rows = {tuple(int(latent) for latent in name[1:].split("_") if latent): row for name, row in table.items()}
        vars(self).update(edit=EDIT.model_copy(update={"max_cost": 0.125}), table=rows, asked=[])

    def readout(self, latents: list[int], labels: SearchLabels) -> tuple[dict[str, float], dict[str, float]]:
        self.asked.append(tuple(latents))
        R_semi_nude, R_clothed, semi_nude, clothed = self.table[tuple(latents)]
        return {SEMI_NUDE: R_semi_nude, CLOTHED: R_clothed}, {SEMI_NUDE: semi_nude, CLOTHED: clothed}


def test_latents_are_edited_too_if_they_add_net_gain_within_the_cost():
    images = Told(
        _=(-2.0, -0.5, 0.25, 1.0),
        _1=(-1.5, -0.5, 0.5, 1.0),  # net gain .5
        _1_2=(-1.25, -0.25, 0.5, 1.0),  # .75 - .25: as much
        _1_3=(-1.25, -0.5, 0.5, 0.875),  # .75, and costs all that is allowed
        _1_4=(-1.0, -0.5, 0.5, 0.75),  # 1, and costs more
    )
    gains = Gains(images, SEMI_NUDE)
    assert [gains.accept([1], [latent]) for latent in (2, 3, 4)] == [False, True, False]
    assert gains.measure([3, 1]) == gains.measure([1, 3])
    assert sorted(images.asked) == [(), (1,), (1, 2), (1, 3), (1, 4)]  # each set once, whatever its order


def test_without_the_condition_the_mean_over_both_counts():
    images = Told(_=(-2.0, -0.5, 0.25, 1.0), _1=(-1.5, -1.1, 0.5, 0.5), _2=(-2.1, -0.3, 0.25, 1.0))
    for losing in (SEMI_NUDE, CLOTHED):
        gains = Gains(images, losing)
        assert [gains.accept_in_both([], [latent]) for latent in (1, 2)] == [False, True]

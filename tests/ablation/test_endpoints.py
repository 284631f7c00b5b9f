"""Endpoints of the causal test, worked out by hand on two women."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stages.core.ablation.endpoints import ArmOutcomes, CausalTest
from stages.core.latents.spliced_clip import Outcomes, original
from stages.core.paired import Pairs
from stages.core.run import params
from stages.core.schema import Inference
from tests.imports import ROOT

INFERENCE = params.load(Inference, fpath=ROOT / "params.yaml")


PAIRS = Pairs(pd.DataFrame({"identity": ["a", "b"], "semi_nude": [0, 1], "clothed": [2, 3]}))  # two women


def tried(**R: list[float]) -> ArmOutcomes:
    """Arms with R of the four images; right where R is above -1."""
    values = np.array(list(R.values()))
    return ArmOutcomes(dict.fromkeys(R, original), Outcomes(values, (values > -1).astype(float), np.ones_like(values)))


WHOLE = {"original": [-3.0, -2.0, -0.5, -0.5], "edited": [-1.5, -0.5, -0.5, -0.7]}
WITHOUT_BUST = {"original": [-1.0, -0.5, -0.6, -0.5], "edited": [-1.0, -0.5, -0.5, -0.7]}
TEST = CausalTest(PAIRS, INFERENCE, "semi_nude", tried(**WHOLE), {"bust": tried(**WITHOUT_BUST)})


def test_the_edit_is_judged_beside_its_controls():
    controls = pd.DataFrame(
        {
            "R_gain": [0.0, 0.1, 2.0],
            "accuracy_gain": [0.0, 0.0, 0.0],
            "bust_reliance_R": [1.75, 1.5, 1.2],
        }
    )
    found = TEST.judge_edit(controls)
    assert found["R"]["gain"]["estimate"] == pytest.approx(1.5)
    assert found["R"]["cost"]["estimate"] == pytest.approx(0.1)
    assert found["R"]["share_of_gap_recovered"] == pytest.approx(1.5 / 2)
    assert found["R"]["p_random_sets"] == pytest.approx(2 / 4) and found["R"]["best_random_set"] == 2
    assert found["accuracy"]["gain"]["estimate"] == pytest.approx(0.5)
    assert found["accuracy"]["p_random_sets"] == pytest.approx(1 / 4)
    reliance = found["bust_reliance"]  # 1.75 before; after it (0.5 + 0) / 2
    assert reliance["fall"]["estimate"] == pytest.approx(1.5)
    assert reliance["best_random_set"] == pytest.approx(0.55) and reliance["p_random_sets"] == pytest.approx(1 / 4)


def test_an_edit_for_clothed_women_is_judged_on_them():
    """R of clothed women is the second half of each list: it falls by .1, and that of semi-nude women rises by 1.5."""
    none = pd.DataFrame({"R_gain": [], "accuracy_gain": [], "bust_reliance_R": []})
    found = CausalTest(PAIRS, INFERENCE, "clothed", tried(**WHOLE), {"bust": tried(**WITHOUT_BUST)}).judge_edit(none)
    assert found["R"]["gain"]["estimate"] == pytest.approx(-0.1)
    assert found["R"]["cost"]["estimate"] == pytest.approx(-1.5)
    assert "share_of_gap_recovered" not in found["R"] and "p_random_sets" not in found["R"]


def test_reliance_is_the_change_when_a_region_is_hidden():
    found = TEST.summarise_reliance("original")["bust"]
    assert found["R"]["semi_nude"]["estimate"] == pytest.approx(1.75)
    assert found["R"]["clothed"]["estimate"] == pytest.approx(-0.05)
    assert found["accuracy"]["semi_nude"]["estimate"] == pytest.approx(0.5)


def test_arms_tried_apart_join_on_the_same_images():
    both = tried(original=[0.0, -2.0, 0.0, 0.0]) | tried(edited=[-1.0, -2.0, -3.0, -4.0])
    assert list(both.arms) == ["original", "edited"]
    assert both.of_arm("edited").R.tolist() == [-1, -2, -3, -4] and both.of_arm("original").correct.tolist() == [
        1,
        0,
        1,
        1,
    ]


def test_guardrails_tell_the_largest_change_where_none_may_be():
    arms = WHOLE | {"error_kept": WHOLE["original"], "edited_patches": [-3.0, -2.0, -0.5, -0.4]}
    found = CausalTest(PAIRS, INFERENCE, "semi_nude", tried(**arms), {}).guardrails(n_emotions=2)
    assert found["error_kept_largest_R_change"] == 0
    assert found["edited_patches_largest_R_change"] == pytest.approx(0.1)
    assert found["readout_skill"] == 1 and found["cosine_to_original_clothed"] == 1

"""No latent is named without a gap, and the condition that loses is a result."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stages.core.latents import readout_gap
from stages.core.latents.readout_gap import ReadoutGap
from stages.core.latents.spliced_clip import Outcomes
from stages.core.paired import Interval, Pairs
from stages.core.schema import Inference

INFERENCE = Inference.model_construct(min_gap=0.1, min_readout=0.2, confidence=0.95, n_bootstrap=200, seed=0)


@pytest.mark.parametrize(
    ("low", "high", "skill", "losing"),
    [
        (0.2, 0.6, 0.9, "semi_nude"),
        (-0.6, -0.2, 0.9, "clothed"),
        (-0.1, 0.6, 0.9, None),  # not shown to differ
        (0.05, 0.08, 0.9, None),  # shown to differ, by less than is worth explaining
        (0.2, 0.6, 0.1, None),  # reads no face
    ],
)
def test_the_losing_condition(low, high, skill, losing):
    assert ReadoutGap(Interval((low + high) / 2, low, high), skill).losing(INFERENCE) == losing


def test_the_readout_is_judged_on_the_condition_that_is_read_better():
    n = 12
    pairs = Pairs(pd.DataFrame({"identity": np.arange(n), "semi_nude": np.arange(n), "clothed": n + np.arange(n)}))
    rng = np.random.default_rng(0)
    R = np.concatenate([rng.normal(-0.1, 0.01, n), rng.normal(-2.0, 0.1, n)])  # clothed women are misread
    found = readout_gap.measure(Outcomes(R[None], (R > -1.0)[None].astype(float), R[None]), pairs, 4, INFERENCE)
    assert found.skill == 1
    assert found.R.estimate == pytest.approx((R[n:] - R[:n]).mean())
    assert found.losing(INFERENCE) == "clothed"

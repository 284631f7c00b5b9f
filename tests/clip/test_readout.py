"""The emotion readout R, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.core.clip.readout import Readout, skill


def test_skill_runs_from_chance_to_certainty():
    assert [skill(accuracy, 4) for accuracy in (0.25, 0.625, 1.0)] == [0, 0.5, 1]


def test_the_readout_by_hand():
    readout = Readout(torch.eye(2), scale=2.0)
    embedded = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    truth = torch.tensor([0, 0])
    expected = [-np.log(1 + np.exp(-2)), -2 - np.log(1 + np.exp(-2))]
    assert readout.score(embedded, truth).tolist() == pytest.approx(expected, rel=1e-5)
    assert readout.correct(embedded, truth).tolist() == [1.0, 0.0]

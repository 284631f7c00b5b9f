"""The emotion readout R, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.core.clip.readout import Readout, embedded_each, skill


def test_skill_runs_from_chance_to_certainty():
    assert [skill(accuracy, 4) for accuracy in (0.25, 0.625, 1.0)] == [0, 0.5, 1]


def test_the_readout_by_hand():
    readout = Readout(torch.eye(2), scale=2.0)
    embedded = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    truth = torch.tensor([0, 0])
    expected = [-np.log(1 + np.exp(-2)), -2 - np.log(1 + np.exp(-2))]
    assert readout.score(embedded, truth).tolist() == pytest.approx(expected, rel=1e-5)
    assert readout.correct(embedded, truth).tolist() == [1.0, 0.0]


def test_several_prompts_of_an_emotion_are_averaged(tiny_clip):
    readout = Readout.from_prompts(tiny_clip, [["a sad woman", "a woman who weeps"], ["a happy woman"]])
    sad, weeps, happy = tiny_clip.text(["a sad woman", "a woman who weeps", "a happy woman"])
    assert torch.allclose(readout.prompts[0], (sad + weeps) / (sad + weeps).norm(), atol=1e-6)
    assert torch.allclose(readout.prompts[1], happy, atol=1e-6)


def test_each_text_gets_its_own_embedding(tiny_clip):
    texts = ["sad", "happy", "sad"]
    assert torch.allclose(embedded_each(tiny_clip, texts), tiny_clip.text(texts), atol=1e-6)

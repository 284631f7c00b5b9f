"""Integrated gradients against a few lines of float64, and the sum that they must have."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from stages.core.readout_maps import integrated_gradients
from stages.core.readout_maps.changed_inputs import read_pixels_of_original, read_tokens
from stages.core.readout_maps.fills import filled
from stages.core.readout_maps.integrated_gradients import CompleteMaps, StraightPath
from stages.core.run import params
from stages.core.schema import MapReadout
from tests.imports import ROOT

ROWS = np.array([0, 1, 6, 15])
DEFAULT = params.load(MapReadout, fpath=ROOT / "params.yaml")


def in_float64(spliced, pixels, baseline, n: int = 100) -> torch.Tensor:
    """The midpoint rule with many steps, on a copy of the model in float64."""
    visual, prompts = copy.deepcopy(spliced.clip.visual).double(), spliced.readout.prompts.double()
    pixels, baseline, total = pixels.double(), baseline.double(), torch.zeros_like(pixels, dtype=torch.float64)
    for i in range(n):
        x = (baseline + (i + 0.5) / n * (pixels - baseline)).requires_grad_()
        logits = spliced.readout.scale * normalize(visual(x), dim=-1) @ prompts.T
        R = torch.log_softmax(logits, -1)[torch.arange(len(x)), spliced.truth(ROWS)]
        total += torch.autograd.grad(R.sum(), x)[0] / n
    return ((pixels - baseline) * total).sum(1).reshape(len(x), 4, 8, 4, 8).sum((2, 4))


@pytest.fixture
def inputs(spliced):
    images = spliced.data.images(ROWS)
    return spliced.clip.pixels(images), {f: spliced.clip.pixels(filled(images, f)) for f in ("grey", "blurred")}


def of_pixels(spliced, pixels, baseline, n_steps: int, batch_size: int) -> CompleteMaps:
    path = StraightPath(read_pixels_of_original(spliced, ROWS), baseline, pixels, n_steps, batch_size)
    return integrated_gradients.of_pixels(path, (4, 4))


def change_by_two_passes(spliced, baseline, pixels) -> torch.Tensor:
    """R(pixels) - R(baseline), from two full passes of CLIP."""
    with torch.no_grad():
        start, end = (spliced.readout.score(spliced.clip.embed(x), spliced.truth(ROWS)) for x in (baseline, pixels))
    return end - start


@pytest.mark.parametrize("fill", ["grey", "blurred"])
def test_pixels_add_up_and_equal_the_midpoint_rule_in_float64(spliced, inputs, fill):
    pixels, baseline = inputs[0], inputs[1][fill]
    change = change_by_two_passes(spliced, baseline, pixels)
    found = of_pixels(spliced, pixels, baseline, DEFAULT.n_steps, batch_size=7)
    expected = in_float64(spliced, pixels, baseline)
    assert change.abs().median() > 0.05  # there is something to add up to
    assert torch.allclose(found.change, change, atol=1e-5)
    assert torch.allclose(found.maps.sum((1, 2)), change, rtol=0.02, atol=1e-5)
    assert torch.allclose(found.completeness_gap, (found.maps.sum((1, 2)) - change).abs(), atol=1e-6)
    assert (found.maps - expected).abs().max() / expected.abs().max() < 0.01


def test_fewer_steps_leave_a_gap(spliced, inputs):
    pixels, baseline = inputs[0], inputs[1]["grey"]
    gaps = [of_pixels(spliced, pixels, baseline, n, batch_size=64).completeness_gap.max() for n in (1, DEFAULT.n_steps)]
    assert gaps[0] > 10 * gaps[1]


def test_tokens_add_up_with_the_class_token(spliced):
    tokens = spliced.audit.tokens(ROWS)
    mean = spliced.audit.tokens(np.arange(16)).mean(0).expand_as(tokens)
    path = StraightPath(read_tokens(spliced, ROWS), mean, tokens, n_steps=8, batch_size=9)
    found = integrated_gradients.of_tokens(path, (4, 4))
    truth = spliced.truth(ROWS)
    ends = [spliced.readout.score(spliced.clip.tail(x, 2), truth) for x in (mean, tokens)]
    total = found.maps.sum((1, 2)) + found.elsewhere
    assert torch.allclose(total, ends[1] - ends[0], rtol=0.02, atol=1e-3)
    assert found.completeness_gap.max() < 1e-3
    assert found.maps.abs().max() > 1e-3 and found.elsewhere.abs().max() > 1e-3


def test_after_the_last_block_only_the_class_token_counts(spliced):
    last = replace(spliced, layer=3)
    baseline, tokens = torch.randn(2, 4, 17, 32)
    path = StraightPath(read_tokens(last, ROWS), baseline, tokens, n_steps=32, batch_size=9)
    found = integrated_gradients.of_tokens(path, (4, 4))
    assert not found.maps.any()
    assert torch.allclose(found.elsewhere, found.change, rtol=0.02, atol=1e-3)


def test_the_mean_slope_of_a_cubic_by_hand():
    """R = a . x^3: the mean slope from b to x is a (x^2 + x b + b^2). Midpoints of n steps miss a (x - b)^2 / 4n^2."""
    a, x, b = torch.randn(3, 2, 5, dtype=torch.float64)
    path = StraightPath(lambda given, image: (a[image] * given**3).sum(-1), b, x, n_steps=4, batch_size=3)
    assert torch.allclose(path.mean_gradient(), a * (x**2 + x * b + b**2 - (x - b) ** 2 / 64))

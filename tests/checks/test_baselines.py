"""Baseline maps, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stages.core.checks import baselines


def test_the_gaussian_stands_in_the_middle_and_falls_as_its_spread_says():
    """On a grid of 4 x 8, the middle of the first patch lies .375 above and .4375 left of the middle of the image."""
    found = baselines.maps((2, 4, 8), seed=0)["centre_gaussian"]
    assert found[0, 0, 0] == pytest.approx(np.exp(-(0.375**2 + 0.4375**2) / 0.125))
    assert np.array_equal(found[0], found[0, ::-1, ::-1]) and np.array_equal(found[0], found[1])
    assert found.max() == found[0, 1, 3] == pytest.approx(np.exp(-(0.125**2 + 0.0625**2) / 0.125))


def test_random_maps_differ_from_image_to_image_and_come_back_with_the_seed():
    found = baselines.maps((2, 4, 8), seed=0)["random"]
    assert not np.isin(found[0], found[1]).any()
    assert np.array_equal(found, baselines.maps((2, 4, 8), seed=0)["random"])

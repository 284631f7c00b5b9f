"""What hidden pixels become."""

from __future__ import annotations

import numpy as np
import pytest

from stages.core.readout_maps.fills import filled
from stages.core.run import labels


def test_grey_is_the_grey_of_all_stages(rng):
    images = rng.integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    assert (filled(images, "grey") == labels.GREY).all()


def test_a_blur_keeps_a_plain_image_and_spreads_an_edge_alike_in_each_colour(rng):
    images = np.zeros((2, 32, 32, 3), np.uint8)
    images[0] = [10, 200, 90]
    images[1, :, 16:] = 100
    found = filled(images, "blurred", spread=0.125)
    assert (found[0] == [10, 200, 90]).all()
    assert (found[1] == found[1, :1, :, :1]).all()
    across = found[1, 0, :, 0].astype(int)
    assert (np.diff(across) >= 0).all() and across[0] < 2 and across[-1] > 98
    assert across[15] + across[16] == pytest.approx(100, abs=1)
    assert np.count_nonzero((across > 16) & (across < 84)) == pytest.approx(8, abs=1)  # one deviation, 4 px, each way

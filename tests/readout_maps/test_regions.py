"""Scores of signed maps, worked out by hand, and the control regions."""

from __future__ import annotations

import numpy as np
import pytest

from stages.core.data.dataset import patch_means
from stages.core.readout_maps.regions import control_masks, harm_share, region_sum

MAPS = np.array([[[2.0, -1.0], [-4.0, 3.0]]])
COVERAGE = np.array([[[0.5, 1.0], [0.25, 0.0]]])


def test_scores_by_hand():
    assert region_sum(MAPS, COVERAGE) == pytest.approx([1 - 1 - 1])
    assert harm_share(MAPS, COVERAGE) == pytest.approx([(1 + 1) / 5])
    assert region_sum(MAPS, COVERAGE) + region_sum(MAPS, 1 - COVERAGE) == pytest.approx(MAPS.sum((1, 2)))


def test_a_map_without_harm_scores_the_share_of_the_area():
    assert harm_share(np.abs(MAPS), COVERAGE) == pytest.approx([1.75 / 4])
    assert harm_share(0 * MAPS, COVERAGE) == pytest.approx([1.75 / 4])


def places_by_loop(mask: np.ndarray, avoided: np.ndarray) -> list[np.ndarray]:
    """Every shift of the mask and of its mirror image, one after the other."""
    side, found = len(mask), []
    for given in (mask, mask[:, ::-1]):
        for down in range(-side, side + 1):
            for right in range(-side, side + 1):
                moved = np.zeros_like(mask)
                for y, x in zip(*np.nonzero(given), strict=True):
                    if 0 <= y + down < side and 0 <= x + right < side:
                        moved[y + down, x + right] = given[y, x]
                if (moved > 0).sum() == (given > 0).sum() and not (moved * avoided).any():
                    found.append(moved)
    return found


def test_a_control_is_the_mean_over_all_places_where_the_shape_fits(rng):
    mask = np.zeros((1, 12, 12))
    mask[0, 7:10, 2:6] = rng.random((3, 4)).round(2) + 0.01
    mask[0, 7, 2] = 0  # the shape is no box, and no mirror image of itself
    avoided = mask.copy()
    avoided[0, 1:5, 4:9] = 0.3
    control, fits = control_masks(mask, avoided)
    places = places_by_loop(mask[0], avoided[0])
    assert fits[0] and len(places) > 10
    assert control[0] == pytest.approx(np.mean(places, axis=0), abs=1e-9)
    assert control.sum() == pytest.approx(mask.sum())
    assert (control * avoided).max() < 1e-9
    maps = rng.normal(size=(1, 4, 4))
    sums = [region_sum(maps, patch_means(place[None], (4, 4)))[0] for place in places]
    assert region_sum(maps, patch_means(control, (4, 4))) == pytest.approx([np.mean(sums)])


def test_where_the_shape_fits_nowhere_the_area_is_spread_over_the_rest():
    mask = np.zeros((3, 6, 6))
    mask[0, 1:5] = 1  # higher than what is left
    mask[2] = 1
    control, fits = control_masks(mask, mask)
    assert not fits.any()
    assert control[0, 0] == pytest.approx(np.ones(6)) and not control[0, 1:5].any()
    assert not control[1:].any()  # an empty mask, and a mask of the whole image
    mask[0, 2:5] = 0
    mask[0, 1] = [1, 1, 1, 1, 1, 1]
    blocked = np.ones((1, 6, 6))
    blocked[0, 3:5, 0:3] = 0
    control, fits = control_masks(mask[:1], blocked)
    assert not fits.any() and control.sum() == pytest.approx(6) and set(np.unique(control)) == {0, 1}

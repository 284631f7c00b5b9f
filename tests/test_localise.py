"""Localisation scores, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from stages.core import localise

MASK = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])  # area share 1/4
HEAT = np.array([[4.0, 1.0, 2.0, 0.0], [1.0, -5.0, 0.0, 0.0]])
ZERO, EMPTY, FULL = np.zeros((2, 4)), np.zeros((2, 4)), np.ones((2, 4))


def test_scores_by_hand():
    assert localise.relevance_mass(HEAT, MASK) == 5 / 8  # the negative part is no relevance
    assert localise.energy_lift(HEAT, MASK) == pytest.approx(5 / 8 / (1 / 4))
    assert localise.matched_area_iou(HEAT, MASK) == 1 / 3  # top 2: one in, one out
    assert localise.relevance_rank_accuracy(HEAT, MASK) == 1 / 2
    assert localise.pointing_hit(HEAT, MASK) == 1
    assert localise.threshold_iou(HEAT, MASK, 0.5) == 2 / 7  # cut at -0.5: all but one patch
    assert localise.pixel_auc(HEAT, MASK) == pytest.approx(roc_auc_score(MASK.ravel(), HEAT.ravel()))


def test_a_perfect_map():
    found = localise.scores(MASK, MASK)
    assert found["energy_lift"] == 4
    for name in ("matched_area_iou", "threshold_iou", "relevance_mass", "rank_accuracy", "pixel_auc", "pointing_hit"):
        assert found[name] == 1, name


def test_ties_do_not_depend_on_order():
    heat = np.ones((2, 4))
    assert localise.matched_area_iou(heat, MASK) == pytest.approx(localise.chance_iou(MASK))
    assert localise.matched_area_iou(heat, MASK[::-1, ::-1]) == localise.matched_area_iou(heat, MASK)
    assert localise.pointing_hit(heat, MASK) == 1 / 4


def test_a_zero_map_scores_chance_and_is_counted():
    found, chance = localise.scores(ZERO, MASK), localise.chance(MASK)
    assert {name: found[name] for name in chance} == pytest.approx(chance)
    assert found["threshold_iou"] == 0
    assert localise.degenerate(ZERO, MASK)
    assert not localise.degenerate(HEAT, MASK)


@pytest.mark.parametrize("mask", [EMPTY, FULL])
def test_empty_and_full_masks_are_defined_and_counted(mask):
    assert all(np.isfinite(value) for value in localise.scores(HEAT, mask).values())
    assert localise.degenerate(HEAT, mask)
    assert localise.pixel_auc(HEAT, mask) == 0.5
    assert localise.energy_lift(HEAT, mask) == 1


def test_chance_is_what_random_maps_score(rng):
    names = ("energy_lift", "matched_area_iou", "relevance_mass", "rank_accuracy", "pixel_auc", "pointing_hit")
    mask = np.zeros((8, 8))
    mask[2:5, 1:6] = 1
    drawn = [localise.scores(rng.random((8, 8)), mask) for _ in range(3000)]
    chance = localise.chance(mask)
    for name in names:
        # IoU is convex in the overlap, so its mean lies a little above its value at the expected overlap
        assert np.mean([d[name] for d in drawn]) == pytest.approx(chance[name], rel=0.07), name


def test_coverage_is_the_exact_area_share():
    mask = np.zeros((1, 8, 8), np.uint8)
    mask[0, 0:3, 0:4] = 255
    assert localise.patch_coverage(mask, (2, 2)).tolist() == [[[0.75, 0.0], [0.0, 0.0]]]
    with pytest.raises(ValueError, match="does not tile"):
        localise.patch_coverage(mask, (3, 2))

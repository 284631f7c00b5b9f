"""Localisation scores, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import quantus
from sklearn.metrics import roc_auc_score

from stages.core import localise
from stages.core.data import dataset

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
    assert dataset.patch_coverage(mask, (2, 2)).tolist() == [[[0.75, 0.0], [0.0, 0.0]]]
    with pytest.raises(ValueError, match="does not tile"):
        dataset.patch_coverage(mask, (3, 2))


def quantus_scores(heat: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Quantus' scores of one map, as it stands in its first channel, neither made absolute nor normalised."""
    as_given = {"abs": False, "normalise": False, "disable_warnings": True}
    a_batch, s_batch = heat[None, None], mask[None, None]
    metrics = {
        "relevance_mass": quantus.RelevanceMassAccuracy(**as_given),
        "rank_accuracy": quantus.RelevanceRankAccuracy(**as_given),
        "pixel_auc": quantus.AUC(**as_given),
        "pointing_hit": quantus.PointingGame(**as_given),
    }
    return {name: float(metric.evaluate_batch(a_batch=a_batch, s_batch=s_batch)[0]) for name, metric in metrics.items()}


def test_scores_equal_quantus_on_maps_without_ties_and_masks_of_whole_patches(rng):
    for _ in range(50):
        heat, mask = rng.random((8, 8)), np.zeros((8, 8))
        top, left = rng.integers(0, 6, 2)
        mask[top : top + rng.integers(1, 4), left : left + rng.integers(1, 4)] = 1
        expected = quantus_scores(heat, mask)
        found = localise.scores(heat, mask)
        assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore")
def test_where_quantus_has_no_number_or_a_wrong_one_ours_is_defined():
    """An empty mask, a zero map; a flat map, all of whose patches it counts as hits; a negative patch, as mass."""
    ours, theirs = localise.scores(HEAT, EMPTY), quantus_scores(HEAT, EMPTY)
    assert np.isnan(theirs["relevance_mass"]) and ours["relevance_mass"] == 0
    assert np.isnan(theirs["rank_accuracy"]) and ours["rank_accuracy"] == 0
    assert theirs["pointing_hit"] == 1 and ours["pointing_hit"] == 0  # not a number, kept as a truth value
    ours, theirs = localise.scores(ZERO, MASK), quantus_scores(ZERO, MASK)
    assert np.isnan(theirs["relevance_mass"]) and ours["relevance_mass"] == 1 / 4
    assert theirs["pointing_hit"] == 1 and ours["pointing_hit"] == 1 / 4
    ours, theirs = localise.scores(HEAT, MASK), quantus_scores(HEAT, MASK)
    assert theirs["relevance_mass"] > 1 and ours["relevance_mass"] == 5 / 8

"""Deletion and insertion, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stages.core.checks import deletion_insertion
from stages.core.run import labels

HEAT = np.array([[[3.0, 1.0], [2.0, 0.0]]])
IMAGES = np.arange(1, 17, dtype=np.uint8).reshape(1, 4, 4, 1).repeat(3, axis=3)


def test_the_most_relevant_patches_come_first_and_ties_in_reading_order():
    assert deletion_insertion.most_relevant(HEAT, 0.5).tolist() == [[[True, False], [True, False]]]
    assert deletion_insertion.most_relevant(np.zeros((1, 2, 2)), 0.25).tolist() == [[[True, False], [False, False]]]
    assert not deletion_insertion.most_relevant(HEAT, 0.0).any() and deletion_insertion.most_relevant(HEAT, 1.0).all()


def test_deletion_hides_what_insertion_shows():
    deleted = deletion_insertion.perturbed(IMAGES, HEAT, 0.25, "deletion")
    inserted = deletion_insertion.perturbed(IMAGES, HEAT, 0.25, "insertion")
    assert (deleted[0, :2, :2] == labels.GREY).all() and (deleted[0, 2:] == IMAGES[0, 2:]).all()
    assert (inserted[0, :2, :2] == IMAGES[0, :2, :2]).all() and (inserted[0, 2:] == labels.GREY).all()
    assert ((deleted == IMAGES) ^ (inserted == IMAGES)).all()


def test_within_a_region_its_own_patches_alone_are_ranked():
    heat = np.array([[[9.0, 1.0], [2.0, 3.0]]])
    among = np.array([[[False, True], [True, True]]])
    assert deletion_insertion.most_relevant(heat, 1 / 3, among).tolist() == [[[False, False], [False, True]]]
    assert np.array_equal(deletion_insertion.most_relevant(heat, 1.0, among), among)
    assert not deletion_insertion.most_relevant(heat, 1.0, np.zeros_like(among)).any()


def test_nothing_deleted_and_everything_inserted_is_the_image():
    assert (deletion_insertion.perturbed(IMAGES, HEAT, 0.0, "deletion") == IMAGES).all()
    assert (deletion_insertion.perturbed(IMAGES, HEAT, 1.0, "insertion") == IMAGES).all()


def test_area_of_a_straight_line_is_its_middle_whatever_the_shares():
    for shares in ([0.0, 0.05, 0.3, 1.0], [0.0, 0.5, 1.0]):
        lines = np.stack([1 - np.array(shares), 2 * np.array(shares)], axis=1)
        assert deletion_insertion.area(lines, shares) == pytest.approx([0.5, 1.0])

"""Embedding association by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stages.core.ablation.association import association, effect_size


def test_association_by_hand():
    embeddings = np.array([[1.0, 0.0], [0.6, 0.8]])
    prompts = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    found = association(embeddings, prompts, np.array([0, 1]))
    assert found == pytest.approx([1 - (0 - 1) / 2, 0.8 - (0.6 - 0.6) / 2])


def test_effect_size_is_the_difference_of_means_in_standard_deviations():
    assert effect_size(np.array([0.0, 0.0]), np.array([1.0, 1.0])) == pytest.approx(1 / np.sqrt(1 / 3))
    assert effect_size(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 0
    assert effect_size(np.zeros(2), np.zeros(2)) == 0

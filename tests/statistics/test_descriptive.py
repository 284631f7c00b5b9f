"""The published study's statistics, on numbers that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stages.core.statistics import descriptive

CONDITION = np.array(["semi_nude", "clothed", "clothed", "semi_nude"])


def test_the_published_tests_compare_the_means_of_latents_and_larger_on_semi_nude_images_is_above_one_half():
    values = np.array([[5.0, 7.0], [1.0, 0.0], [1.0, 2.0], [5.0, 3.0]])  # means: 5 and 5 semi-nude, 1 and 1 clothed
    found = descriptive.published_block(values, CONDITION)
    assert (found["auc"], found["cliffs_delta"], found["ks_statistic"]) == (1, 1, 1)
    assert descriptive.published_block(-values, CONDITION)["auc"] == 0


def test_clusters_of_four_images_on_a_line():
    scores, tried = descriptive.clusters(np.array([[0.0, 3.0], [1.0, 3.0], [10.0, 3.0], [11.0, 3.0]]), 2, seed=0)
    assert np.abs(scores[:, 0]) == pytest.approx([5.5, 4.5, 4.5, 5.5])
    assert tried["k"].tolist() == [2] and tried["inertia"].tolist() == pytest.approx([4 * 0.5**2])
    outer, inner = (10.5 - 1) / 10.5, (9.5 - 1) / 9.5  # (distance to the other cluster - to one's own) / the larger one
    assert tried["silhouette"].tolist() == pytest.approx([(outer + inner) / 2])


def test_there_are_fewer_clusters_than_images():
    _, tried = descriptive.clusters(np.array([[0.0, 3.0], [1.0, 4.0], [10.0, 3.0], [11.0, 1.0]]), 9, seed=0)
    assert tried["k"].tolist() == [2, 3]


def test_the_best_number_of_clusters_has_the_largest_silhouette():
    tried = pd.DataFrame({"k": [2, 3, 4], "inertia": [9.0, 5.0, 4.0], "silhouette": [0.2, 0.6, 0.5]})
    assert descriptive.summarise_clusters(tried) == {"best_k": 3, "silhouette": 0.6}

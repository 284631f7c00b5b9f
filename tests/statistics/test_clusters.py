"""PCA and K-means of images, on numbers that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stages.core.statistics.clusters import clusters


def test_clusters_of_four_images_on_a_line():
    scores, tried = clusters(np.array([[0.0, 3.0], [1.0, 3.0], [10.0, 3.0], [11.0, 3.0]]), 2, seed=0)
    assert np.abs(scores[:, 0]) == pytest.approx([5.5, 4.5, 4.5, 5.5])
    assert tried["k"].tolist() == [2] and tried["inertia"].tolist() == pytest.approx([4 * 0.5**2])
    outer, inner = (10.5 - 1) / 10.5, (9.5 - 1) / 9.5  # (distance to the other cluster - to one's own) / the larger one
    assert tried["silhouette"].tolist() == pytest.approx([(outer + inner) / 2])


def test_there_are_fewer_clusters_than_images():
    _, tried = clusters(np.array([[0.0, 3.0], [1.0, 4.0], [10.0, 3.0], [11.0, 1.0]]), 9, seed=0)
    assert tried["k"].tolist() == [2, 3]

"""What the figure of an SAE's statistics marks."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stages.core import figures
from stages.core.statistics import drawing


def test_the_candidates_are_the_latents_that_rise_most_on_semi_nude_images():
    _, axes = figures.panels(2)
    values = np.array([[1.0, 4.0, 2.0, 9.0], [1.0, 2.0, 8.0, 5.0]])  # semi-nude minus clothed: 0, 2, -6, 4
    drawing.draw_activations(axes[0], values, np.array(["semi_nude", "clothed"]), n_candidates=2)
    (marked,) = axes[0, 1].lines
    assert dict(zip(*marked.get_data(), strict=True)) == {3: 4, 1: 2}


def test_each_list_marks_its_latents_where_their_gaps_are():
    _, axes = figures.panels(1)
    tests = pd.DataFrame({"act_mean": [0.0, -1.0, 2.0], "eff_mean": [0.5, 3.0, -4.0]})
    found = {"bias": pd.DataFrame({"latent": [1]}), "perception": pd.DataFrame({"latent": [1, 2]})}
    drawing.draw_lists(axes[0, 0], tests, found)
    points = {line.get_label(): line.get_xydata().tolist() for line in axes[0, 0].lines}
    assert points["bias (1)"] == [[-1, 3]] and points["perception (2)"] == [[-1, 3], [2, -4]]

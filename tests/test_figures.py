"""Figures are drawn without a screen, whatever the environment asks for, and a colour says what it should."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from stages.core import figures
from tests.imports import ROOT
from tests.studies import ENV

DRAW = """
from pathlib import Path
from stages.core import figures
figure, axes = figures.panels(1)
axes[0, 0].plot([0, 1], [1, 0])
figures.save(figure, Path("a.png"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["nonsense", "TkAgg", "", "module://nowhere"])
def test_the_backend_of_the_user_does_not_count(tmp_path, backend):
    environment = ENV | {"MPLBACKEND": backend, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", DRAW], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (484, 374)  # 4.4 x 3.4 inches at 110 dots per inch


def test_a_signed_map_is_blue_where_it_is_positive_red_where_it_is_negative_and_clear_at_zero():
    """A white picture of 3 x 3 patches: the left column is 1, the middle one 0, the right one -1."""
    figure, axes = figures.grid(1, 1, "", cell=(2, 2))
    white, none = np.full((30, 30, 3), 255, np.uint8), np.zeros((30, 30), np.uint8)
    none[0, 0] = 255  # an outline needs an inside
    figures.signed_overlay(axes[0, 0], white, np.tile([1.0, 0.0, -1.0], (3, 1)), 1.0, bust=none, face=none)
    figure.canvas.draw()
    seen = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    places = axes[0, 0].transData.transform([(5, 15), (15, 15), (25, 15)]).round().astype(int)
    positive, zero, negative = (seen[len(seen) - y, x] for x, y in places)  # rows of a picture count from the top
    figures.pyplot().close(figure)
    assert positive[2] > positive[0] + 60 and negative[0] > negative[2] + 60
    assert zero == pytest.approx(255 * figures.PALE[1], abs=1)

"""Figures are drawn without a screen, whatever the environment asks for."""

from __future__ import annotations

import subprocess
import sys

import pytest
from PIL import Image

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

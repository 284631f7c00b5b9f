"""What a stage imports before it works: packages that only some runs need wait until they are needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.imports import ROOT

STAGES = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")
SLOW = ("matplotlib", "open_clip", "scipy.stats", "sklearn", "torchvision")  # a third of a second each, or more


@pytest.mark.parametrize("stage", STAGES)
def test_slow_packages_wait_until_they_are_needed(stage):
    imported = f"import sys, stages.{stage}; print(*[name for name in {SLOW!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", imported], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

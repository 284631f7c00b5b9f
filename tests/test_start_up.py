"""What a stage does before it works: it imports no package that only some runs need, and says what it is for."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from tests.imports import ROOT

pytestmark = pytest.mark.slow

STAGES = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")
SLOW = ("matplotlib", "open_clip", "scipy.stats", "sklearn", "torchvision")  # a third of a second each, or more


@pytest.mark.parametrize("stage", STAGES)
def test_slow_packages_wait_until_they_are_needed(stage):
    imported = f"import sys, stages.{stage}; print(*[name for name in {SLOW!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", imported], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("stage", STAGES)
def test_asked_for_help_a_stage_says_what_it_does_and_does_nothing(stage, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [stage, "--help"])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"stages.{stage}").main()
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert all(f"\n{word}" in said for word in ("reads", "writes", "claims"))
    assert not list(tmp_path.iterdir())

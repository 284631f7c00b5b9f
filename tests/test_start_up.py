"""What a stage does before it works: it imports no package that only some runs need, and says what it is for."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys

import pytest

from tests.imports import ROOT

pytestmark = pytest.mark.slow

STAGES = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")
SLOW = ("matplotlib", "open_clip", "scipy.stats", "sklearn", "torchvision")  # a third of a second each, or more


@pytest.fixture(scope="module")
def imported() -> dict[str, list[str]]:
    """Slow packages that each stage imports, if no stage before it in the alphabet has. One process tries all."""
    tries = f"""
import importlib, json, sys
found, seen = {{}}, set()
for stage in {STAGES!r}:
    importlib.import_module(f"stages.{{stage}}")
    found[stage] = [name for name in {SLOW!r} if name in sys.modules and name not in seen]
    seen.update(found[stage])
print(json.dumps(found))"""
    done = subprocess.run([sys.executable, "-c", tries], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("stage", STAGES)
def test_slow_packages_wait_until_they_are_needed(stage, imported):
    assert imported[stage] == []


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


def test_every_target_of_the_makefile_does_something():
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()
    assert {"repro", "test", "explore"} <= set(targets)
    assert [name for name in targets if not re.search(rf"^{name}:.*\n\t", text, re.MULTILINE)] == []

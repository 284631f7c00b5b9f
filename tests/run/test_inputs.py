"""A command that outlives its inputs writes nothing: what it read must still be there when it writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from stages.core.run import inputs, outs, params
from stages.core.schema import Grid, World
from tests.imports import ROOT
from tests.studies import change_params


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with an input, an output of an earlier run and params.yaml, as working directory."""
    (tmp_path / "input").write_text("old")
    (tmp_path / "output").write_text("earlier")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write() -> None:
    with outs.atomic_output(Path("output")) as unfinished:
        unfinished.write_text("new")


def rewrite(path: Path) -> None:
    path.write_text("older")


def replace(path: Path) -> None:
    with outs.atomic_output(path) as unfinished:
        unfinished.write_text("old")
    os.utime(path, ns=(0, 0))  # even a date of the past tells it from what was there


@pytest.mark.parametrize("change", [rewrite, replace, Path.unlink])
def test_what_changed_since_it_was_read_keeps_the_output_from_its_place(place, change):
    with inputs.watched():
        inputs.remember_file(Path("input"))
        write()
        change(place / "input")
        with pytest.raises(outs.OutputError, match="output is not written: input has changed"):
            outs.write_metrics(Path("output"), {"a": 1})
    assert (place / "output").read_text() == "new"
    assert list(place.glob(".part.*")) == []


def test_an_input_that_appears_after_it_was_looked_for_is_a_change(place):
    with inputs.watched():
        inputs.remember_file(Path("optional"))
        (place / "optional").mkdir()
        assert inputs.changed() == ["optional"]


def test_the_first_look_counts(place):
    with inputs.watched():
        inputs.remember_file(Path("input"))
        rewrite(place / "input")
        inputs.remember_file(Path("input"))
        assert inputs.changed() == ["input"]


def test_only_the_sections_that_were_loaded_must_stay(place):
    with inputs.watched():
        first = params.load(Grid)
        change_params(place, {"world": {"n_women": 5}})  # which drops all comments, too
        assert params.load(Grid) == first
        write()
        change_params(place, {"grid": {"layers": [1]}})
        with pytest.raises(outs.OutputError, match=r"params\.yaml \(sections grid\) has changed"):
            write()
        change_params(place, {"grid": {"layers": first.layers}})
        write()


@pytest.mark.parametrize("text", [None, "[", "grid: 1"])
def test_params_that_cannot_be_read_any_more_have_changed(place, text):
    with inputs.watched():
        params.load(World)
        (place / "params.yaml").unlink()
        if text:
            (place / "params.yaml").write_text(text)
        assert len(inputs.changed()) == 1


def test_outside_a_command_nothing_is_remembered(place):
    inputs.remember_file(Path("input"))
    params.load(Grid)
    rewrite(place / "input")
    assert inputs.changed() == []
    with inputs.watched():
        inputs.remember_file(Path("input"))
    rewrite(place / "input")
    assert inputs.changed() == []


ORPHAN = """
import time
from pathlib import Path
from stages.core.run import outs, params
from stages.core.run.errors import run_command
from stages.core.schema import World

def main():
    world = params.load(World)
    Path("read").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    outs.write_metrics(Path("output"), {"seed": world.seed})

run_command(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_suspended_command_does_not_undo_a_newer_run(place, seed):
    """It is stopped after it read, the study goes on with a seed, and it is continued. The same seed does no harm."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    orphan = subprocess.Popen([sys.executable, "-c", ORPHAN], env=environment, stderr=subprocess.PIPE, text=True)
    while not (place / "read").exists():
        assert orphan.poll() is None
        time.sleep(0.01)
    orphan.send_signal(signal.SIGSTOP)
    change_params(place, {"world": {"seed": seed}})
    (place / "output").write_text(newer := "the newer run")
    (place / "go").touch()
    orphan.send_signal(signal.SIGCONT)
    said = orphan.communicate(timeout=60)[1]
    if seed == yaml.safe_load((ROOT / "params.yaml").read_text())["world"]["seed"]:
        assert orphan.returncode == 0 and outs.read_json(place / "output", "ingest") == {"seed": seed}
    else:
        assert orphan.returncode == 1 and (place / "output").read_text() == newer
        assert said.startswith("output is not written: params.yaml (sections world) has changed")

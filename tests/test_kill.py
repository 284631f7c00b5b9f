"""A stage killed while it writes, and two runs at once, leave the study as it was. `make soak` kills many more."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest

from tests.soak.kill import Kill, differences, mend, running, snapshot, stages, start, strike
from tests.studies import ENV, change_params, run


@pytest.fixture
def study(studies, tmp_path) -> Path:
    return shutil.copytree(studies["synthetic"], tmp_path / "study", symlinks=True)


@pytest.mark.parametrize(
    ("name", "how", "with_dvc"),
    [
        ("ingest", SIGKILL, True),
        ("extract", SIGTERM, False),
        ("train_sae@2-4", SIGTERM, True),
        ("ablate", SIGKILL, False),
    ],
)
def test_a_stage_killed_while_it_writes_is_run_again_to_the_same_bytes(study, name, how, with_dvc):
    reference = snapshot(study)
    assert strike(study, stages(study)[name], Kill(how, with_dvc, at_write=True, seconds=0.0))
    assert mend(study, reference) == []


def test_a_second_run_of_a_stage_is_refused_and_spoils_nothing(study):
    reference = snapshot(study)
    first = start(study, "--single-item", "--force", "extract")
    while running(first) is None:
        assert first.poll() is None, "it ended before it could be met"
        time.sleep(0.01)
    command = ["dvc", "repro", "--single-item", "--force", "extract"]
    second = subprocess.run(command, cwd=study, env=ENV, capture_output=True, text=True, check=False)
    assert second.returncode != 0 and "is busy, it is being blocked by" in second.stderr
    assert first.wait() == 0
    assert differences(study, reference) == []


def test_a_stage_that_outlived_its_dvc_does_not_undo_a_newer_run(study):
    """DVC is killed and its stage suspended, the study is run with another seed, and the stage is continued."""
    name = "train_sae@2-4"
    change_params(study, {"train_sae": {"steps": 5000}})
    dvc = start(study, "--single-item", "--force", name)
    while not any((study / ".ckpt" / "train_sae").glob("*/")):
        assert dvc.poll() is None, (study / "repro.log").read_text()
        time.sleep(0.01)
    orphan = running(dvc)
    orphan.suspend()
    dvc.kill()
    dvc.wait()
    change_params(study, {"train_sae": {"steps": 8, "seed": 5}})
    run(study, "dvc", "repro", "--single-item", name)
    newer = snapshot(study)
    orphan.resume()
    orphan.wait(300)
    assert snapshot(study) == newer
    assert "train_sae) has changed since this command read it" in (study / "repro.log").read_text()


def test_what_a_kill_leaves_is_told(study):
    reference = snapshot(study)
    (study / "plots" / ".part.ablate.csv").write_text("row\n")
    (study / "plots" / "heatmap.csv").write_text("row\n")
    (study / "metrics" / "ablate.json").unlink()
    assert [line for line in differences(study, reference) if "\n" not in line] == [
        "plots/.part.ablate.csv is left over",
        "metrics/ablate.json is missing",
        "plots/heatmap.csv has changed",
    ]

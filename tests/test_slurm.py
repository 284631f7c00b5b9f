"""The jobs of stages/studies/slurm, run here one after the other: DVC cannot tell their work from its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.studies import ENV, ran, run

JOBS = Path("stages/studies/slurm")
TASKS = {"1": "1-2", "8": "3-4"}  # of the array, with the points of the toy grid that they are


def undo(folder: Path, stage: str) -> None:
    """Take away what a stage left, and DVC's knowledge of it; its place in the lock file stays."""
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    for out in lock["stages"][stage]["outs"]:
        out["md5"] = "0" * 32
        path = folder / out["path"]
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))


@pytest.fixture
def undone(studies, tmp_path) -> Path:
    """The planted study without two points of its grid."""
    folder = shutil.copytree(studies["synthetic"], tmp_path / "study")
    for point in TASKS.values():
        undo(folder, f"train_sae@{point}")
        undo(folder, f"analyse_sae@{point}")
    return folder


def bash(folder: Path, job: str) -> subprocess.CompletedProcess[str]:
    """Run a job that may fail."""
    command = ["bash", JOBS / f"{job}.sbatch"]
    return subprocess.run(command, cwd=folder, env=ENV, capture_output=True, text=True, check=False)


def test_points_trained_as_jobs_are_what_dvc_would_have_made(studies, undone, monkeypatch):
    early = bash(undone, "commit")
    assert early.returncode != 0 and "'data/sae/l1_x2' does not exist" in early.stderr
    for task in TASKS:
        monkeypatch.setitem(ENV, "SLURM_ARRAY_TASK_ID", task)
        run(undone, "bash", str(JOBS / "grid.sbatch"))
    assert ran(run(undone, "bash", str(JOBS / "commit.sbatch"))) == set()
    assert (undone / "dvc.lock").read_bytes() == (studies["synthetic"] / "dvc.lock").read_bytes()
    assert "up to date" in run(undone, "dvc", "status")


def test_a_task_beyond_the_grid_stops(undone, monkeypatch):
    monkeypatch.setitem(ENV, "SLURM_ARRAY_TASK_ID", "9")
    beyond = bash(undone, "grid")
    assert beyond.returncode != 0 and "points[SLURM_ARRAY_TASK_ID]: unbound variable" in beyond.stderr

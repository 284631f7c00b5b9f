"""What two processes share equals what one does alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from stages.core.run import compute
from stages.core.run.compute import ALONE, Ranks
from stages.core.sae import JumpReLUSAE
from stages.core.training import TrainConfig, train
from stages.core.training.checkpoint import Checkpoint
from tests.imports import ROOT
from tests.studies import run
from tests.training.test_checkpoint import tokens

pytestmark = pytest.mark.slow

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
CONFIG = TrainConfig(d_sae=96, steps=40, batch_size=65, target_l0=4, dead_after_steps=2, precision="float32")


def in_this_rank(folder: Path, recipe: str) -> None:
    """What each of the two processes runs."""
    torch.set_num_threads(1)
    group = compute.join_ranks(torch.device("cpu"))
    assert group.size == 2
    config = replace(CONFIG, recipe=recipe)
    sae, history = train(tokens(), config, checkpoint=Checkpoint(folder), ranks=group)
    sae.save(folder / str(group.rank))
    history.to_csv(folder / str(group.rank) / "history.csv", index=False)
    compute.leave_ranks()


@pytest.mark.parametrize("recipe", ["target_l0", "published"])
def test_two_processes_end_where_one_does(tmp_path, recipe):
    subprocess.run(
        [*TORCHRUN, "-m", "tests.run.test_compute", str(tmp_path), recipe], cwd=ROOT, check=True, timeout=120
    )
    alone, _ = train(tokens(), replace(CONFIG, recipe=recipe))
    for rank in ("0", "1"):
        shared = JumpReLUSAE.load(tmp_path / rank)
        for name, weight in shared.state_dict().items():
            assert torch.allclose(weight, alone.state_dict()[name], atol=2e-3), name
    assert (tmp_path / "0" / "history.csv").read_bytes() == (tmp_path / "1" / "history.csv").read_bytes()


@pytest.mark.parametrize("stage", ["extract", "heatmap", "ablate"])
def test_a_stage_run_by_two_processes_writes_the_same_bytes(studies, tmp_path, stage):
    folder = shutil.copytree(studies["synthetic"], tmp_path / "study")
    lock = (folder / "dvc.lock").read_bytes()
    outs = [out["path"] for out in yaml.safe_load(lock)["stages"][stage]["outs"]]
    for out in outs:
        unlinked(folder / out)
    run(folder, *TORCHRUN, "-m", f"stages.{stage}")
    assert all((folder / out).exists() for out in outs)
    run(folder, "dvc", "commit", "--force", stage)
    assert (folder / "dvc.lock").read_bytes() == lock


def unlinked(path: Path) -> None:
    """Remove an output, so that it has to be written."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def test_shares_cover_everything_once():
    for n in (0, 1, 7, 64):
        parts = [list(range(n))[Ranks(rank, 3).share(n)] for rank in range(3)]
        assert [i for part in parts for i in part] == list(range(n))


def test_alone_nothing_is_exchanged():
    a = torch.ones(3)
    ALONE.sum(a)
    ALONE.max(a)
    ALONE.wait()
    assert torch.equal(a, torch.ones(3)) and torch.equal(ALONE.joined(a[:, None]), a[:, None])
    assert compute.join_ranks(torch.device("cpu")) is ALONE


if __name__ == "__main__":
    in_this_rank(Path(sys.argv[1]), sys.argv[2])

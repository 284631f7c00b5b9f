"""What two processes share equals what one does alone."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import yaml

from stages.core.planted import demo
from stages.core.run import compute
from stages.core.run.compute import ALONE, Ranks
from stages.core.sae import JumpReLUSAE
from stages.core.schema import Compute
from stages.core.training import TrainConfig, train
from stages.core.training.checkpoint import Checkpoint
from tests import s3, warm
from tests.imports import ROOT
from tests.studies import run
from tests.training.test_checkpoint import tokens

pytestmark = pytest.mark.slow

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
    warm.run_ranks(ROOT, "tests.run.test_compute", str(tmp_path), recipe, n=2, port=s3.free_port())
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
    warm.run_ranks(folder, f"stages.{stage}", n=2, port=s3.free_port())
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


TWO = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"WORLD_SIZE": "2"}, "RANK is not set, not a number from 0 to 1"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE is ''"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0', not a number from 1"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE is '-2'"),
        ({"WORLD_SIZE": "1.5"}, "WORLD_SIZE is '1.5'"),
        ({"WORLD_SIZE": "²"}, "WORLD_SIZE is '²'"),
        ({**TWO, "RANK": "2"}, "RANK is '2', not a number from 0 to 1"),
        ({**TWO, "RANK": "first"}, "RANK is 'first'"),
        (TWO, "MASTER_PORT is not set"),
        ({**TWO, "MASTER_PORT": "99999"}, "MASTER_PORT is '99999', not a number from 0 to 65535"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "29501"}, r"cannot meet .*MASTER_ADDR expected"),
    ],
)
def test_variables_of_ranks_that_make_no_sense_are_named(monkeypatch, variables, says):
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(compute.RanksError, match=f"{says}.*start several processes with torchrun"):
        compute.join_ranks(torch.device("cpu"))


def test_a_process_that_nobody_joins_says_so_and_waits_no_day(monkeypatch):
    monkeypatch.setattr(compute, "MEETING", timedelta(seconds=1))
    for name, value in (TWO | {"MASTER_PORT": str(s3.free_port())}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(compute.RanksError, match=r"The 2 processes cannot meet .*1/2 clients joined"):
        compute.join_ranks(torch.device("cpu"))


@pytest.mark.parametrize("local", ["2", "-1", "first", ""])
def test_a_gpu_that_is_not_there_is_not_asked_for(monkeypatch, local):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", local)
    with pytest.raises(compute.RanksError, match=f"LOCAL_RANK is '{local}', not a number from 0 to 1"):
        compute.set_up_device(Compute(device="cuda", precision="float32", threads=0))


def test_a_gpu_takes_only_deterministic_attention(monkeypatch):
    """The backward passes of the others only warn, and add up in an order that varies."""
    cuda = torch.backends.cuda
    kinds = {"mem_efficient": cuda.mem_efficient_sdp_enabled, "cudnn": cuda.cudnn_sdp_enabled}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that what the call sets is undone after the test
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    before = {name: enabled() for name, enabled in kinds.items()}
    try:
        device = compute.set_up_device(Compute(device="auto", precision="float32", threads=0))
        assert device == torch.device("cuda", 0)
        assert not any(enabled() for enabled in kinds.values())
        assert torch.are_deterministic_algorithms_enabled() and not torch.utils.deterministic.fill_uninitialized_memory
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        for name, value in before.items():
            getattr(cuda, f"enable_{name}_sdp")(value)


@pytest.mark.parametrize("has", [compute.matmul_dtype, demo._has_bfloat16])
@pytest.mark.parametrize("native", [True, False])
def test_emulated_bfloat16_does_not_count(monkeypatch, has, native):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    device = torch.device("cuda")
    found = has("auto", device) == torch.bfloat16 if has is compute.matmul_dtype else has(device)
    assert found == native


if __name__ == "__main__":
    in_this_rank(Path(sys.argv[1]), sys.argv[2])

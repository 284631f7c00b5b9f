"""Interrupted training resumes to the same bits; what is not whole or not ours is never used."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stages.core.training import TrainConfig, train
from stages.core.training.batches import InMemory
from stages.core.training.checkpoint import STATE_FNAME, Checkpoint
from tests.imports import ROOT

CONFIG = TrainConfig(d_sae=48, steps=60, batch_size=64, target_l0=4, dead_after_steps=3, learning_rate=1e-2)


def tokens() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(1000, 12, generator=generator) @ torch.randn(12, 12, generator=generator)


def same(a, b) -> bool:
    (sae_a, history_a), (sae_b, history_b) = a, b
    weights = zip(sae_a.state_dict().values(), sae_b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in weights) and history_a.equals(history_b)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 23, 59])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, monkeypatch, stop):
    whole = train(tokens(), CONFIG)
    monkeypatch.setattr(InMemory, "starting_at", interrupted(stop))
    with Checkpoint(tmp_path / "c", every_seconds=0) as kept, pytest.raises(InterruptedError):
        train(tokens(), CONFIG, checkpoint=kept)
    monkeypatch.undo()
    with Checkpoint(tmp_path / "c", every_seconds=0) as kept:
        assert int(kept.load()["n_steps"]) == stop
        assert same(train(tokens(), CONFIG, checkpoint=kept), whole)


def interrupted(stop: int):
    starting_at = InMemory.starting_at

    def batches(self, step):
        yield from islice(starting_at(self, step), stop)
        raise InterruptedError

    return batches


SCRIPT = """
import sys
from pathlib import Path
import torch
from stages.core.training.checkpoint import Checkpoint
from stages.core.training import train
from tests.training.test_checkpoint import CONFIG, tokens
torch.set_num_threads(1)
config = type(CONFIG)(**{**vars(CONFIG), "steps": 1500})
with Checkpoint(Path(sys.argv[1]) / "c", every_seconds=0) as kept:
    sae, _ = train(tokens(), config, checkpoint=kept)
sae.save(sys.argv[1])
"""


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)], cwd=ROOT, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, torch.Tensor]:
    """The weights at the end of a run that nobody kills."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert start(folder).wait() == 0
    return load_file(folder / "sae_weights.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_runs_end_with_the_same_weights(tmp_path, undisturbed, how):
    folder = tmp_path / "killed"
    kills = 0
    for delay in (0.05, 0.4, 0.7):
        process = start(folder)
        while not (folder / "c" / STATE_FNAME).exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(delay)
        if process.poll() is None:
            process.send_signal(how)
            kills += 1
        process.wait()
    assert start(folder).wait() == 0
    assert kills >= 1
    weights = load_file(folder / "sae_weights.safetensors")
    assert all(torch.equal(weights[name], weight) for name, weight in undisturbed.items())


def test_a_damaged_state_counts_as_none(tmp_path):
    with Checkpoint(tmp_path / "c") as kept:
        kept.save({"a": torch.ones(100)})
        fpath = tmp_path / "c" / STATE_FNAME
        whole = fpath.read_bytes()
        for damaged in (whole[:-20], whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:]):
            fpath.write_bytes(damaged)
            assert kept.load() is None
        fpath.write_bytes(whole)
        assert torch.equal(kept.load()["a"], torch.ones(100))


def test_other_inputs_have_another_checkpoint():
    one, other = Checkpoint.for_inputs("train_sae", steps=1), Checkpoint.for_inputs("train_sae", steps=2)
    assert one.directory != other.directory
    assert one.directory == Checkpoint.for_inputs("train_sae", steps=1).directory


@pytest.mark.slow
def test_a_second_process_waits_for_the_first(tmp_path):
    waiting = f"""
from pathlib import Path
from stages.core.training.checkpoint import Checkpoint
print("waiting", flush=True)
with Checkpoint(Path({str(tmp_path / "c")!r})):
    print("in")
"""
    with Checkpoint(tmp_path / "c"):
        second = subprocess.Popen([sys.executable, "-c", waiting], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert second.stdout.readline() == "waiting\n"
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(timeout=1)
    assert second.communicate(timeout=20)[0] == "in\n"


def test_done_removes_it(tmp_path):
    with Checkpoint(tmp_path / "c") as kept:
        kept.save({"a": torch.ones(1)})
        kept.done()
    assert kept.load() is None

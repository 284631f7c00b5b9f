"""Activation stores in object storage: an S3 server on this machine, behind a line that drops and that is slow.

Whoever writes and reads is a process of its own, as a stage is.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import boto3
import numpy as np
import pytest

from stages.core import store
from stages.core.run.errors import run_command
from tests import s3, warm
from tests.imports import ROOT
from tests.studies import ENV, change_params

pytestmark = pytest.mark.slow

TOKENS = np.random.default_rng(0).normal(size=(12, 20, 32)).astype(np.float32)


def fill(place: Path) -> None:
    with store.create(place, *TOKENS.shape, shard_images=4, remote=f"s3://{s3.BUCKET}/filled") as new:
        for part in np.array_split(TOKENS, 5):
            new.append(part)
        new.attributes = {"layer": 1}


def compare(place: Path) -> None:
    opened = store.open(place)
    assert (opened.read(slice(None)) == TOKENS).all() and (opened.read(np.array([7, 2])) == TOKENS[[7, 2]]).all()


def in_a_process(what, place, check=True):
    return warm.run(ROOT, "tests.test_remote_store", what.__name__, str(place), check=check)


@pytest.fixture
def line(monkeypatch):
    """A line to a server with a bucket."""
    with s3.server() as endpoint:
        line = s3.BadLine(endpoint)
        s3.log_in(monkeypatch, AWS_ENDPOINT_URL=line.address)
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=s3.BUCKET)
        yield line
        line.close()


def test_a_dropped_connection_costs_nothing_but_time(line, tmp_path):
    in_a_process(fill, tmp_path / "s.zarr")
    assert (tmp_path / "s.zarr").is_file()
    line.drops = 2
    in_a_process(compare, tmp_path / "s.zarr")
    assert line.dropped == 2


def test_a_slow_line_is_waited_for(line, tmp_path):
    line.rate = 8_000
    for what in (fill, compare):
        waited = line.waited
        in_a_process(what, tmp_path / "s.zarr")
        assert line.waited - waited > TOKENS.nbytes / line.rate


def test_storage_out_of_reach_is_one_sentence(line, tmp_path, monkeypatch):
    in_a_process(fill, tmp_path / "s.zarr")
    monkeypatch.setitem(ENV, "AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3.free_port()}")
    for what in (fill, compare):
        done = in_a_process(what, tmp_path / "s.zarr", check=False)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert f"s3://{s3.BUCKET}/filled/s.zarr cannot be reached" in done.stderr
    monkeypatch.setitem(ENV, "AWS_ENDPOINT_URL", line.address)
    in_a_process(compare, tmp_path / "s.zarr")


def test_training_from_object_storage_ends_with_the_same_weights(studies, line, tmp_path):
    folder = shutil.copytree(studies["synthetic"], tmp_path / "study")
    point = ("--layer", "1", "--expansion", "2")
    weights = folder / "data" / "sae" / "l1_x2" / "sae_weights.safetensors"
    before = weights.read_bytes()
    change_params(folder, {"extract": {"remote": f"s3://{s3.BUCKET}/activations"}})
    warm.run(folder, "stages.extract")
    assert (folder / "data" / "activations" / "l1.zarr").is_file()
    weights.unlink()
    warm.run(folder, "stages.train_sae", *point)
    assert weights.read_bytes() == before


if __name__ == "__main__":
    run_command(lambda: {"fill": fill, "compare": compare}[sys.argv[1]](Path(sys.argv[2])))

"""Push to and pull from an S3-compatible server, a process on this machine: a colleague computes nothing again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path

import boto3
import pytest
import yaml

from tests import s3
from tests.s3 import BUCKET
from tests.studies import change_params, ran, run


@pytest.fixture
def endpoint(monkeypatch) -> Iterator[str]:
    """Address of a server that speaks S3."""
    s3.log_in(monkeypatch)
    with s3.server() as address:
        yield address


def hashes(path: Path) -> set[str]:
    """MD5 of a file, or of every file in a folder, as DVC names them in its remote."""
    fpaths = path.rglob("*") if path.is_dir() else [path]
    return {md5(fpath.read_bytes()).hexdigest() for fpath in fpaths if fpath.is_file()}


def kept_here(folder: Path) -> set[str]:
    """Outputs that dvc.yaml marks `push: false`."""
    stages = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"].values()
    settings = [out for stage in stages for out in stage.get("outs", []) if isinstance(out, dict)]
    return {path for out in settings for path, options in out.items() if options.get("push") is False}


def test_a_colleague_gets_the_results_and_no_image(studies, endpoint, tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    shutil.copytree(studies["synthetic"], ours)
    store = boto3.client("s3", endpoint_url=endpoint)
    store.create_bucket(Bucket=BUCKET)
    for command in (
        ("dvc", "remote", "add", "--default", "store", f"s3://{BUCKET}"),
        ("dvc", "remote", "modify", "store", "endpointurl", endpoint),
        ("git", "add", "-A"),
        ("git", "commit", "-qm", "run"),
        ("dvc", "push"),
    ):
        run(ours, *command)
    pages = store.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    kept = {key["Key"].removeprefix("files/md5/").replace("/", "") for page in pages for key in page["Contents"]}
    assert hashes(ours / "data" / "sae") <= kept
    assert {"data/dataset", "plots/heatmap.png", "plots/report.html"} <= kept_here(ours)
    for path in kept_here(ours):
        assert hashes(ours / path).isdisjoint(kept), path
    lock = yaml.safe_load((ours / "dvc.lock").read_text())["stages"]
    written = {out["path"]: out["md5"] for stage in lock.values() for out in stage["outs"]}
    assert {written[path] for path in kept_here(ours)}.isdisjoint(kept)

    run(tmp_path, "git", "clone", "-q", str(ours), str(theirs))
    assert not (theirs / "data" / "sae").exists()
    log = run(theirs, "dvc", "repro", "--allow-missing", "--dry")
    assert ran(log) == set() and "up to date" in log

    run(theirs, "dvc", "repro", "ingest")  # images are drawn, or one's own: they are never in the store
    change_params(theirs, {"ablate": {"seed": 7}})
    assert ran(run(theirs, "dvc", "repro", "--pull", "--allow-missing", "ablate")) == {"ablate"}
    assert (theirs / "data" / "selection").is_dir()
    assert not (theirs / "data" / "sae").exists(), "inputs of other stages were fetched"

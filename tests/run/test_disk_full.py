"""On a full disk a writer names what does not fit and the space there is, and leaves what was there before."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.full_disk import WRITERS
from tests.imports import ROOT
from tests.soak.kill import snapshot
from tests.studies import change_params, run

pytestmark = pytest.mark.slow


def on_a_small_disk(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command that sees a file system of 1 MiB at `folder`, which nobody else does."""
    script = f"mount -t tmpfs -o size=1m tmpfs '{folder}' && {command}"
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, dict]:
    """What became of a writer of each kind."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here, to mount a small file system with")
    disk = tmp_path_factory.mktemp("disk")
    refused = on_a_small_disk(disk, "true")
    if refused.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {refused.stderr.strip()}")
    done = on_a_small_disk(disk, f"'{sys.executable}' -m tests.full_disk '{disk}'")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


FULL_CACHE = """
mount -t tmpfs none .dvc/cache && cp -a kept/. .dvc/cache
mount -o remount,size=$(($(df -k --output=used .dvc/cache | tail -1) + 8))k .dvc/cache
dvc repro --single-item train_sae@2-4 > full.log 2>&1
mount -o remount,size=100m .dvc/cache
cp -r data/sae metrics/train_sae with_full_cache
dvc repro --single-item train_sae@2-4 && dvc status train_sae@2-4 && dvc checkout train_sae@2-4
"""


def test_a_full_cache_of_dvc_costs_one_more_run(studies, found, tmp_path):
    """DVC only says so, and ends as if all were well. Its next run finds the output missing in the cache."""
    study = shutil.copytree(studies["synthetic"], tmp_path / "study", symlinks=True)
    (study / ".dvc" / "cache").rename(study / "kept")
    (study / ".dvc" / "cache").mkdir()
    (study / "with_full_cache").mkdir()
    change_params(study, {"train_sae": {"seed": 7}})
    said = run(study, "unshare", "--map-root-user", "--mount", "sh", "-ec", FULL_CACHE)
    assert "No space left on device" in (study / "full.log").read_text()
    assert "Running stage 'train_sae@2-4'" in said and "up to date" in said
    for name in ("data/sae", "metrics/train_sae"):
        assert snapshot(study / name) == snapshot(study / "with_full_cache" / Path(name).name)


@pytest.mark.parametrize("kind", WRITERS)
def test_what_does_not_fit_is_named_and_what_was_there_is_kept(found, kind):
    tried = found[kind]
    assert tried["code"] == 1
    assert tried["place"] in tried["said"].replace(".part.", "")
    assert re.search(r"[0-9] MiB are free", tried["said"])
    assert "Traceback" not in tried["said"]
    assert tried["before"] and tried["after"] == tried["before"]

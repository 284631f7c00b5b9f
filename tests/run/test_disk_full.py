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


@pytest.mark.parametrize("kind", WRITERS)
def test_what_does_not_fit_is_named_and_what_was_there_is_kept(found, kind):
    tried = found[kind]
    assert tried["code"] == 1
    assert tried["place"] in tried["said"].replace(".part.", "")
    assert re.search(r"[0-9] MiB are free", tried["said"])
    assert "Traceback" not in tried["said"]
    assert tried["before"] and tried["after"] == tried["before"]

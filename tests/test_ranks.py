"""Two processes share a stage, and one of them meets a fault: both end, nothing is lost, and the next run is whole."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests import s3
from tests.soak.kill import snapshot
from tests.studies import environment

pytestmark = pytest.mark.slow

SECONDS = 120  # within which all processes must have ended


@pytest.fixture
def study(studies, tmp_path) -> Path:
    return shutil.copytree(studies["synthetic"], tmp_path / "study", symlinks=True)


def start(study: Path, stage: str, shells: tuple[str, str] = ("{}", "{}")) -> list[subprocess.Popen[str]]:
    """Two ranks of a stage, as a cluster starts them: no torchrun ends one when the other has ended.

    shells: the command line of each rank, with the stage in place of {}.
    """
    port = str(s3.free_port())
    meet = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    command = f"exec python -m stages.{stage}"
    return [
        subprocess.Popen(
            ["sh", "-c", shell.format(command)],
            cwd=study,
            env=environment() | meet | {"RANK": str(rank), "LOCAL_RANK": "0"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, shell in enumerate(shells)
    ]


def ended(ranks: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Status of each rank, and what it said; fails if one goes on."""
    found = []
    for rank in ranks:
        try:
            said = rank.communicate(timeout=SECONDS)[1]
        except subprocess.TimeoutExpired:
            for other in ranks:
                other.kill()
            raise
        found.append((rank.returncode, said))
    return found


def whole(study: Path) -> dict[str, str]:
    return {name: digest for name, digest in snapshot(study).items() if ".part." not in name}


def run_again(study: Path, stage: str, reference: dict[str, str]) -> None:
    """The next run of both ranks writes the same bytes, and removes what the last one left."""
    assert [status for status, _ in ended(start(study, stage))] == [0, 0]
    assert snapshot(study) == reference


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_takes_the_other_along(study, victim):
    reference = snapshot(study)
    ranks = start(study, "extract")
    while not list((study / "data" / "activations").glob(".part.*")):
        assert all(rank.poll() is None for rank in ranks)
        time.sleep(0.005)
    ranks[victim].kill()
    found = ended(ranks)
    assert found[victim][0] == -9
    status, said = found[1 - victim]
    assert status == 1 and "Another process of this stage has ended" in said and "Traceback" not in said
    assert whole(study) == reference
    run_again(study, "extract", reference)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_may_not_write_its_share_takes_the_other_along(study, victim):
    """The shards of l1 have 90 kB, more than `ulimit -f` allows to one of the two."""
    reference = snapshot(study)
    shells = ["{}", "{}"]
    shells[victim] = "ulimit -f 8; {}"
    found = ended(start(study, "extract", tuple(shells)))
    assert found[victim][0] == 1 and "ulimit -f" in found[victim][1]
    assert all(status == 1 and "Traceback" not in said for status, said in found)
    assert whole(study) == reference
    run_again(study, "extract", reference)

"""A stage in a fork: its exit status arrives, and nothing of it is left."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import forks, warm
from tests.studies import environment

SECONDS = 30


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not until():
        assert time.monotonic() < end, f"not within {SECONDS} s"
        time.sleep(0.02)


def is_gone(process: int) -> bool:
    """No process has this number: it has ended, and somebody has waited for it."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def folder(tmp_path) -> Path:
    """A project with one stage, whose source is its first option."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "any.py").write_text("import sys\nexec(sys.argv[1])\n")
    return tmp_path


def test_an_exit_status_arrives(folder):
    assert warm.run(folder, "stages.any", "sys.exit(3)", check=False).returncode == 3


def test_a_fork_ends_with_its_client(folder):
    source = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    command = ["python", "-m", "stages.any", source]
    with subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True) as client:
        fork = int(client.stdout.readline())
        assert not is_gone(fork) and fork != client.pid
        client.kill()
    wait(lambda: is_gone(fork))


def test_a_server_leaves_no_folder():
    server, folder = forks.start()
    assert (folder / "python").exists()
    server.stdin.close()
    assert server.wait(timeout=120) == 0
    assert not folder.exists()


def test_a_rank_that_fails_ends_the_others(folder):
    """Rank 1 says more than a pipe holds, and would wait for ten minutes."""
    (folder / "stages" / "ranked.py").write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "said = Path('said')\n"
        "if os.environ['RANK'] == '1':\n"
        "    print('x' * 200_000, flush=True)\n"
        "    Path('writing').write_text(str(os.getpid()))\n"
        "    Path('writing').rename(said)\n"
        "    time.sleep(600)\n"
        "while not said.exists():\n"
        "    time.sleep(0.02)\n"
        "sys.exit('no more')\n"
    )
    with pytest.raises(AssertionError, match=r"rank 0 of .*stages.ranked.*\nno more"):
        warm.run_ranks(folder, "stages.ranked", n=2, port=1)
    wait(lambda: is_gone(int((folder / "said").read_text())))

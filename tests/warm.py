"""Stages in forks of a process that has imported torch and open_clip (tests/forks).

done = warm.run(folder, "stages.train_sae", "--layer", "2", "--expansion", "4")
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from tests.studies import environment


def run(folder: Path, module: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Do what `python -m <module> <options>` does in a folder, by the code that lies there."""
    command = ["python", "-m", module, *options]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def run_ranks(folder: Path, module: str, *options: str, n: int, port: int) -> None:
    """Do what `torchrun --nproc-per-node <n> -m <module> <options>` does in a folder. The ranks meet at a free port.

    If a rank fails, the others are killed.
    """
    shared = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = ["python", "-m", module, *options]
    with ExitStack() as started:
        ranks = [started.enter_context(_rank(folder, command, shared, rank)) for rank in range(n)]
        while any(rank.poll() is None for rank, _ in ranks) and not any(rank.returncode for rank, _ in ranks):
            time.sleep(0.02)
        for number, (rank, said) in enumerate(ranks):
            assert not rank.returncode, f"rank {number} of {command}\n{_end(said)}"


@contextmanager
def _rank(
    folder: Path, command: list[str], shared: dict[str, str], rank: int
) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Start a rank, and kill it at the end. Gives its process, and the file of what it says, which cannot fill up."""
    with tempfile.TemporaryFile("w+") as said:
        variables = environment() | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = subprocess.Popen(command, cwd=folder, env=variables, stdout=said, stderr=said, text=True)
        try:
            yield process, said
        finally:
            process.kill()
            process.wait()


def _end(said: IO[str]) -> str:
    said.seek(0)
    return said.read()[-4000:]

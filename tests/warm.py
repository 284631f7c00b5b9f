"""Stages in forks of a process that has imported torch and open_clip (tests/forks).

done = warm.run(folder, "stages.train_sae", "--layer", "2", "--expansion", "4")
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.studies import environment


def run(folder: Path, module: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Do what `python -m <module> <options>` does in a folder, by the code that lies there."""
    return _ended(_started(folder, module, *options), check)


def run_ranks(folder: Path, module: str, *options: str, n: int, port: int) -> None:
    """Do what `torchrun --nproc-per-node <n> -m <module> <options>` does in a folder. The ranks meet at a free port."""
    shared = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [_started(folder, module, *options, **shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(n)]
    for rank in ranks:
        _ended(rank, check=True)


def _started(folder: Path, module: str, *options: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["python", "-m", module, *options],
        cwd=folder,
        env=environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _ended(process: subprocess.Popen[str], check: bool) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate()
    assert not check or process.returncode == 0, f"{process.args}\n{out[-4000:]}\n{err[-4000:]}"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)

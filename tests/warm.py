"""Commands in forks of a process that has imported torch and open_clip: they start at once, not after some 7 s.

    done = warm.run(folder, "stages.train_sae", "--layer", "2", "--expansion", "4")

That process is the fork server of the standard library. It has imported packages of others and done nothing else, so a
fork of it is as good as a new process.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["open_clip", "matplotlib.pyplot", "pandas", "scipy.stats", "sklearn.cluster", "zarr"])


def run(folder: Path, module: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Do what `python -m <module> <options>` does in a folder, by the code that lies there."""
    with tempfile.TemporaryDirectory() as said:
        return _ended(_started(folder, Path(said), module, options), Path(said), check)


def run_ranks(folder: Path, module: str, n: int, port: int) -> None:
    """Do what `torchrun --nproc-per-node <n> -m <module>` does in a folder. The ranks meet at a free port."""
    shared = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with tempfile.TemporaryDirectory() as said:
        places = [Path(said) / str(rank) for rank in range(n)]
        for place in places:
            place.mkdir()
        ranks = [
            _started(folder, place, module, (), {**shared, "RANK": place.name, "LOCAL_RANK": place.name})
            for place in places
        ]
        for rank, place in zip(ranks, places, strict=True):
            _ended(rank, place, check=True)


def _started(
    folder: Path, said: Path, module: str, options: tuple[str, ...], further: dict[str, str] | None = None
) -> BaseProcess:
    from tests.studies import ENV  # not at the top, because a fork imports `stages` from its own folder

    process = FORKS.Process(target=_become, args=(folder, said, module, options, ENV | (further or {})), name=module)
    process.start()
    return process


def _ended(process: BaseProcess, said: Path, check: bool) -> subprocess.CompletedProcess[str]:
    process.join()
    out, err = ((said / name).read_text() for name in ("out", "err"))
    assert not check or process.exitcode == 0, f"{process.name}\n{out[-4000:]}\n{err[-4000:]}"
    return subprocess.CompletedProcess([process.name], int(process.exitcode or 0), out, err)


def _become(folder: Path, said: Path, module: str, options: tuple[str, ...], environ: dict[str, str]) -> None:
    """The body of a fork: from here on it is the command."""
    for number, name in enumerate(("out", "err"), 1):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT), number)
    os.environ.update(environ)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv = [module, *options]
    runpy.run_module(module, run_name="__main__", alter_sys=True)

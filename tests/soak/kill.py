"""Kills the stages of the toy study at random moments; the next `dvc repro` must leave no trace of it.

    python -m tests.soak.kill [--kills 60] [--seed 0]

The planted world is studied once without disturbance. Then each stage in turn, grid points included, is run by force
and killed: with SIGTERM or SIGKILL, alone or with the `dvc repro` around it, at a moment drawn uniformly from the time
it took undisturbed. Every third kill comes within moments of the first byte that the stage writes, which a uniform draw
would seldom hit. After each, `dvc repro` must leave every file as it was, dvc.lock included, no lock and no file
besides. Training is longer than in the tests and saved often, so that it is killed midway and resumed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, product
from pathlib import Path
from typing import NamedTuple

import psutil
import yaml
from filelock import FileLock, Timeout

from stages.core.run import outs
from tests.bench.table import markdown
from tests.studies import ENV, TOY, clone, ran, run

LONGER = {**TOY, "train_sae": {**TOY["train_sae"], "steps": 200}}
SECONDS_BETWEEN_CHECKPOINTS = 0.2
LOOK_SECONDS = 0.05  # between looks for a process, each of which reads the table of all
POLL_SECONDS = 0.005  # between looks for a file
WRITE_SECONDS = 0.2  # after its first byte, in which a stage is killed every third time
UNTOLD = {".git", ".dvc", ".ckpt", "__pycache__", "repro.log"}  # what is no output of a stage
COLUMNS = ("stage", "kills", "SIGTERM", "SIGKILL", "with dvc", "at its first write", "differences")


class Stage(NamedTuple):
    """A stage as dvc.lock has it: grid points are stages of their own."""

    name: str
    command: list[str]
    outs: list[str]

    def begun(self, folder: Path) -> bool:
        """Whether any of its outputs, or a part of one, is there."""
        paths = [folder / out for out in self.outs]
        return any(path.exists() or path.with_name(f".part.{path.name}").exists() for path in paths)


class Kill(NamedTuple):
    """How and when: `seconds` after the stage has started, or after it has begun to write."""

    signal: signal.Signals
    with_dvc: bool
    at_write: bool
    seconds: float

    @property
    def told(self) -> str:
        whom = "with the dvc around it" if self.with_dvc else "alone"
        return (
            f"{self.signal.name} {whom}, {self.seconds:.2f} s after its {'first write' if self.at_write else 'start'}"
        )


def stages(folder: Path) -> dict[str, Stage]:
    locked = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return {
        name: Stage(name, shlex.split(stage["cmd"])[1:], [out["path"] for out in stage["outs"]])
        for name, stage in locked.items()
    }


def toy(folder: Path) -> Path:
    """The planted world at toy size, its training longer and saved often."""
    clone(folder, LONGER)
    source = folder / "stages" / "core" / "training" / "checkpoint.py"
    often = source.read_text().replace(
        "every_seconds: float = 60.0", f"every_seconds: float = {SECONDS_BETWEEN_CHECKPOINTS}"
    )
    assert often != source.read_text(), "Checkpoint has another interval"
    source.write_text(often)
    return folder


def running(dvc: subprocess.Popen[bytes]) -> psutil.Process | None:
    """The stage that a `dvc repro` is running, if it is running one."""
    for process in psutil.Process(dvc.pid).children(recursive=True):
        try:
            if any(word.startswith("stages.") for word in process.cmdline()):
                return process
        except psutil.NoSuchProcess:
            continue
    return None


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """`dvc repro` as the head of a process group of its own."""
    command = ["dvc", "repro", "--no-run-cache", *options]
    with (folder / "repro.log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=folder, env=ENV, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def undisturbed(folder: Path) -> dict[str, float]:
    """Run the study; seconds that the process of each stage took."""
    dvc = start(folder)
    seen: dict[str, tuple[float, float]] = {}
    while dvc.poll() is None:
        process, now = running(dvc), time.monotonic()
        with suppress(psutil.NoSuchProcess):
            command = shlex.join(process.cmdline()[1:]) if process else ""
            seen[command] = (seen.get(command, (now, now))[0], now)
        time.sleep(LOOK_SECONDS)
    assert dvc.returncode == 0, (folder / "repro.log").read_text()[-4000:]
    took = {command: last - first for command, (first, last) in seen.items()}
    return {name: took[shlex.join(stage.command)] for name, stage in stages(folder).items()}


def strike(folder: Path, stage: Stage, kill: Kill) -> bool:
    """Run a stage and kill it. False if it had ended before its time."""
    dvc = start(folder, "--single-item", "--force", stage.name)
    while (process := running(dvc)) is None and dvc.poll() is None:
        time.sleep(LOOK_SECONDS)
    while kill.at_write and process and process.is_running() and not stage.begun(folder):
        time.sleep(POLL_SECONDS)
    if process:
        try:
            process.wait(kill.seconds)
        except psutil.TimeoutExpired:
            os.killpg(dvc.pid, kill.signal) if kill.with_dvc else process.send_signal(kill.signal)
            process.wait()
    return dvc.wait() != 0


def snapshot(folder: Path) -> dict[str, str]:
    """What is in a study: the MD5 of each file, folders as such."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if UNTOLD.isdisjoint(name.parts):
            found[str(name)] = hashlib.md5(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def differences(folder: Path, reference: dict[str, str]) -> list[str]:
    """What tells a study from the undisturbed one: files, locks, and what DVC thinks of it."""
    found = snapshot(folder)
    told = [f"{name} is left over" for name in sorted(found.keys() - reference.keys())]
    told += [f"{name} is missing" for name in sorted(reference.keys() - found.keys())]
    told += [f"{name} has changed" for name in sorted(found.keys() & reference) if found[name] != reference[name]]
    told += [f"{lock.relative_to(folder)} is held" for lock in (folder / ".ckpt").rglob("*.lock") if held(lock)]
    told += [f"DVC holds {path} for process {pid}" for path, pid in held_by_dvc(folder) if psutil.pid_exists(pid)]
    status = run(folder, "dvc", "status")
    return told if "up to date" in status else [*told, status]


def held(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def held_by_dvc(folder: Path) -> list[tuple[str, int]]:
    """Paths that DVC has locked, and for which processes. It drops those of dead processes once they are in its way."""
    locks = json.loads((folder / ".dvc" / "tmp" / "rwlock").read_text())
    writers = [(path, lock["pid"]) for path, lock in locks.get("write", {}).items()]
    return writers + [(path, lock["pid"]) for path, readers in locks.get("read", {}).items() for lock in readers]


def mend(folder: Path, reference: dict[str, str]) -> list[str]:
    """What `dvc repro` could not make undone. The part of an output that DVC restored from its cache stays until the
    stage runs again: hidden, taken for nothing, and no difference."""
    if (code := start(folder).wait()) != 0:
        return [f"dvc repro ended with {code}: {(folder / 'repro.log').read_text()[-2000:]}"]
    if not ran((folder / "repro.log").read_text()):
        for begun in folder.rglob(".part.*"):
            outs.remove(begun)
    return differences(folder, reference)


def plan(took: dict[str, float], seed: int) -> Iterator[tuple[str, Kill]]:
    """Stages in shuffled order, round after round; each meets another manner in each round."""
    rng = random.Random(seed)
    manners = list(product((signal.SIGTERM, signal.SIGKILL), (False, True)))
    order = rng.sample(sorted(took), len(took))
    for n in count():
        stage, lap = order[n % len(order)], n // len(order)
        how, with_dvc = manners[(n + lap) % len(manners)]
        at_write = n % 3 == 2
        yield stage, Kill(how, with_dvc, at_write, rng.uniform(0, WRITE_SECONDS if at_write else took[stage]))


def table(kills: list[tuple[str, Kill]], found: Counter[str]) -> str:
    """A row for each stage, grid points together, and the total."""

    def row(title: str, some: list[Kill], n_differences: int) -> tuple[str, ...]:
        counts = (
            len(some),
            sum(kill.signal == signal.SIGTERM for kill in some),
            sum(kill.signal == signal.SIGKILL for kill in some),
            sum(kill.with_dvc for kill in some),
            sum(kill.at_write for kill in some),
            n_differences,
        )
        return (title, *map(str, counts))

    names = dict.fromkeys(name.split("@")[0] for name, _ in sorted(kills, key=lambda one: one[0]))
    rows = [row(name, [kill for one, kill in kills if one.split("@")[0] == name], found[name]) for name in names]
    return markdown(COLUMNS, [*rows, row("all", [kill for _, kill in kills], found.total())])


def disturb(
    let_be: Path, took: dict[str, float], n_kills: int, seed: int
) -> tuple[list[tuple[str, Kill]], Counter[str]]:
    """Kill stages of a copy of the study; returns the kills that hit, and differences by stage."""
    reference, known, spoiled = snapshot(let_be), stages(let_be), let_be.with_name("spoiled")
    shutil.copytree(let_be, spoiled)
    kills: list[tuple[str, Kill]] = []
    found: Counter[str] = Counter()
    for name, kill in plan(took, seed):
        if strike(spoiled, known[name], kill):
            kills.append((name, kill))
            print(f"{len(kills):4d}  {name}, {kill.told}", flush=True)
        told = mend(spoiled, reference)
        found[name.split("@")[0]] += len(told)
        if told:
            print("".join(f"      {difference}\n" for difference in told), end="", flush=True)
            shutil.rmtree(spoiled)
            shutil.copytree(let_be, spoiled)
        if len(kills) == n_kills:
            break
    return kills, found


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill stages at random moments; compare with a study that was let be.")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as workplace:
        let_be = toy(Path(workplace) / "let_be")
        kills, found = disturb(let_be, undisturbed(let_be), args.kills, args.seed)
    print(f"\n{table(kills, found)}\n\n{(time.monotonic() - began) / 60:.0f} minutes")
    sys.exit(found.total() > 0)


if __name__ == "__main__":
    main()

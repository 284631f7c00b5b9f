"""Feeds malformed inputs to the stages, and judges what each makes of them.

    python -m tests.soak.fuzz [--n 2500] [--seed 0]
    python -m tests.soak.fuzz --kind SAE --case 17          # one case again, with what was said

Each input is a sound one with one fault in it, in a folder of its own. It is accepted, where the fault does no harm
(what was read must then be finite and of the right shape), or refused with the file or key at fault; `judge.py` tells
what counts as a failure. Exits with 1 if there is any.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from tests.bench.table import markdown
from tests.soak.inputs import INPUTS
from tests.soak.inputs.kinds import NOTHING
from tests.soak.judge import Verdict, judge

MEMORY = 12 * 2**30  # an input that asks for more is refused it, as on a full machine
COLUMNS = ("input", "cases", "accepted", "refused", "failures", "seconds")


@dataclass
class Tally:
    """What became of the cases of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Bench:
    """A sound input of one kind, and cases made of it."""

    def __init__(self, kind: str, root: Path):
        self.kind, self.input = kind, INPUTS[kind]
        self.sound, self.spoilt = root / "sound", root / "spoilt"
        self.sound.mkdir(parents=True)
        with contextlib.chdir(self.sound):
            self.input.make()
        self.digest = self._judge(()).digest

    def _judge(self, named: tuple[str, ...]) -> Verdict:
        self._fresh()
        verdict = judge(self.spoilt, self.input.use, named, self.input.outs)
        assert verdict.outcome == "accepted", f"the sound input of {self.kind}: {verdict.why}"
        return verdict

    def _fresh(self) -> None:
        shutil.rmtree(self.spoilt, ignore_errors=True)
        shutil.copytree(self.sound, self.spoilt, symlinks=True)

    def case(self, seed: int, number: int) -> tuple[str, Verdict]:
        """Spoil the input in one way and read it. Returns what was done, and the verdict."""
        self._fresh()
        rng = np.random.default_rng([seed, list(INPUTS).index(self.kind), number])
        with contextlib.chdir(self.spoilt):
            damage = self.input.damage(rng)
        verdict = judge(self.spoilt, self.input.use, damage.named, self.input.outs)
        if damage.must_show and verdict.outcome == "accepted" and verdict.digest not in (self.digest, NOTHING):
            verdict = Verdict("failure", "accepted, with other content than was written")
        return damage.what, verdict


@contextlib.contextmanager
def bench(kind: str) -> Iterator[Bench]:
    """The kind's input in a temporary folder."""
    with tempfile.TemporaryDirectory() as root:
        yield Bench(kind, Path(root).resolve())


def run(kind: str, n: int, seed: int) -> Tally:
    """The first `n` cases of one kind."""
    tally, start = Tally(), time.perf_counter()
    with bench(kind) as made:
        for number in range(n):
            what, verdict = made.case(seed, number)
            tally.outcomes[verdict.outcome] += 1
            if verdict.outcome == "failure":
                again = f"python -m tests.soak.fuzz --seed {seed} --kind '{kind}' --case {number}"
                tally.failures.append(f"{kind}, {what}\n  {again}\n  {verdict.why}")
    tally.seconds = time.perf_counter() - start
    return tally


def row(kind: str, tally: Tally) -> tuple[str, ...]:
    counts = (tally.outcomes[outcome] for outcome in ("accepted", "refused", "failure"))
    return kind, str(tally.outcomes.total()), *map(str, counts), f"{tally.seconds:.0f}"


def total(tallies: dict[str, Tally]) -> Tally:
    outcomes = sum((tally.outcomes for tally in tallies.values()), Counter())
    return Tally(outcomes, [], sum(tally.seconds for tally in tallies.values()))


def show(kind: str, seed: int, number: int) -> str:
    """One case again; returns its outcome."""
    with bench(kind) as made:
        what, verdict = made.case(seed, number)
    print(f"{what}\n{verdict.outcome}: {verdict.why}")
    return verdict.outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2500, help="cases in all, at least; as many of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=INPUTS, help="of this kind only")
    parser.add_argument("--case", type=int, help="with --kind: this case alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if given.case is not None:
        sys.exit(show(given.kind, given.seed, given.case) == "failure")
    kinds = [given.kind] if given.kind else list(INPUTS)
    tallies = {kind: run(kind, -(-given.n // len(kinds)), given.seed) for kind in kinds}
    for tally in tallies.values():
        print(*tally.failures, sep="\n", end="\n" if tally.failures else "")
    print(markdown(COLUMNS, [row(kind, tally) for kind, tally in (*tallies.items(), ("all", total(tallies)))]))
    sys.exit(any(tally.failures for tally in tallies.values()))


if __name__ == "__main__":
    main()

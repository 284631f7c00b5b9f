"""The checkpoint of a run to resume."""

from __future__ import annotations

from pathlib import Path

from numpy.random import Generator

from stages.core.training.checkpoint import Checkpoint
from tests.soak.damage import pick, spoil_file
from tests.soak.inputs.kinds import NOTHING, Damage, digest
from tests.soak.inputs.sae import random_sae

DPATH = Path(".ckpt/train_sae/0")


def make() -> None:
    with Checkpoint(DPATH) as kept:
        kept.save(dict(random_sae().state_dict()))


def damage(rng: Generator) -> Damage:
    fpath = pick(rng, sorted(path for path in DPATH.rglob("*") if path.is_file()))
    return Damage(spoil_file(fpath, rng), (), must_show=True)


def use() -> str:
    with Checkpoint(DPATH) as kept:
        state = kept.load()
    if state is None:
        return NOTHING
    assert state.keys() == random_sae().state_dict().keys(), list(state)
    return digest(*(state[name] for name in sorted(state)))

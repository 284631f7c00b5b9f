"""params.yaml, and a ready study written over it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.random import Generator

from stages.core import schema
from stages.core.run import params
from stages.studies.apply import apply
from tests.soak.damage import MARKER, pick, spoil_file, spoil_tree
from tests.soak.inputs.kinds import Damage

YAML_NOISE = (
    "a: [",
    "\t",
    "- 1\n- 2",
    "compute: 2001-99-99",
    "compute: !!int x",
    "compute: !!python/object/apply:os.mkdir [" + MARKER + "]",
    "{[1]: 2}",
    "compute: &a [*a]",
    "1: 2\nx: 3\nnull: 4",
    "a: &a [" + "x," * 9 + "]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefgh")),
    "grid:\n  layers: &l [&m [" + "1," * 9 + "]" + ", *m" * 99 + "]\n  expansions: [*l" + ", *l" * 99 + "]",
    "[" * 3000,
    "world: " + "[" * 200_000 + "]" * 200_000,
    "world: {seed: 0, seed: 1}",
    "world: {seed: 0}\nworld: {seed: 0}",
    *(f"world:\n  n_women: {number}\n  n_corpus: 0\n  seed: 0" for number in ("0300", "0o17", "5:00", "1_000", "1e3")),
    "ingest: {prompt: yes, folder: on}",
    "grid:\n  layers:\n"
    + "".join(f"  - &{b} [{f'*{a},' * 9}]\n" for a, b in pairwise("abcdefghijk")).replace("*a", "x"),
)  # fmt: skip


def damage(rng: Generator) -> Damage:
    fpath = Path("params.yaml")
    if rng.random() < 0.2:
        text = fpath.read_text()
        if rng.random() < 0.5:
            noise = pick(rng, YAML_NOISE)
            fpath.write_text(f"{text}\n{noise}\n" if rng.random() < 0.3 else noise)
            return Damage(f"YAML {noise[:80]!r}", ("params.yaml",))
        return Damage(spoil_file(fpath, rng), ("params.yaml",))
    tree = yaml.safe_load(fpath.read_text())
    path = spoil_tree(tree, rng)
    fpath.write_text(yaml.safe_dump(tree, sort_keys=False))
    return Damage(f"{path}: {tree.get(path[0])}", (str(path[1] if len(path) > 1 else path[0]), "unknown section"))


def finite(value: Any) -> None:
    """Floats are numbers, and integers fit the machine's."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            finite(part)
    elif isinstance(value, float):
        assert np.isfinite(value), value


def use() -> str:
    loaded = dict(zip(schema.SECTIONS, params.load(*schema.SECTIONS.values()), strict=True))
    for name in schema.SECTIONS:
        values = loaded[name].model_dump()
        finite(values)
        if "seed" in values:
            torch.Generator().manual_seed(values["seed"])
    assert loaded["ingest"].prompt.format(emotion="calm")
    return ""


def use_study() -> str:
    apply("planted")
    return use()

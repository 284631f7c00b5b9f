"""A folder of images without a manifest, and the arguments that have one written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator

from stages import ingest
from tests.soak.damage import pick, spoil_bytes
from tests.soak.inputs.folder import picture
from tests.soak.inputs.kinds import Damage, run, write_params

PATTERNS = (
    "{identity}_{condition}.png",
    "{identity}{condition}{emotion}{any}",
    "{identity}_{emotion}_{condition}_{identity}.png",
    "{identity}{emotion}{condition}" + "{any}" * 9 + "!",
    "{identity}_{emotion}_{condition}" + "_{any}" * 20,
    "({identity}_{emotion}_{condition}.png",
    "{identity}_{emotion}_{condition}_{0}.png",
    "{identity}_{emotion}_{condition}_{é}.png",
    "{identity}/{emotion}/{condition}\\",
    "{identity}_{emotion}_{condition}\0.png",
    "../{identity}_{emotion}_{condition}.png",
    "[{identity}-{emotion}]*+?{condition}",
    "{{identity}}{emotion}{condition}",
    "",
    "{}",
    "{",
)


def make() -> None:
    write_params(ingest={"source": "folder", "folder": "raw"})
    rng = np.random.default_rng(0)
    Path("raw").mkdir()
    for woman in ("anna", "bea"):
        for condition in ("nude", "clothed"):
            picture(rng).save(Path("raw") / f"{woman}_sad_{condition}.png")
    write_arguments("{identity}_{emotion}_{condition}.png", ["nude=semi_nude"])


def write_arguments(pattern: str, aliases: list[str]) -> None:
    options = [part for alias in aliases for part in ("--alias", alias)]
    Path("arguments.json").write_text(json.dumps([f"--scaffold={pattern}", *options]))


def damage(rng: Generator) -> Damage:
    pattern, alias = pick(rng, PATTERNS), pick(rng, ("nude=semi_nude", "=", "a=b=c", "none", "", "nude=", "é=\0"))
    if rng.random() < 0.5:
        pattern = spoil_bytes(b"{identity}_{emotion}_{condition}.png", rng)[0].decode("latin-1")
    for _ in range(int(rng.integers(3))):
        name = pick(rng, ("a" * 200, "_" * 200, "x_y_z_" * 30, "é", " ", "\udcff", "a\nb", "-", "{identity}"))
        Path("raw", f"{name}.png").touch()
    write_arguments(pattern, [alias])
    return Damage(f"{pattern!r} {alias!r}", ("pattern", "--alias", "no image in raw", "raw"))


def use() -> str:
    run(ingest, *json.loads(Path("arguments.json").read_text()))
    table = pd.read_csv("raw/manifest.csv", dtype=str, keep_default_na=False)
    assert len(table) and (table[["image", "identity"]] != "").all(axis=None), table
    return ""

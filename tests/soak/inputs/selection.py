"""What `select_sae` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
from numpy.random import Generator

from stages.core.latents import selection
from stages.core.latents.lists import COLUMNS
from stages.core.schema import EditedLatents, LatentList
from tests.soak.damage import pick, spoil_file, spoil_json
from tests.soak.inputs import arrays, sae
from tests.soak.inputs.kinds import D_SAE, Damage, digest

DPATH = Path("data/selection")


def make() -> None:
    chosen_sae = sae.random_sae()
    chosen_sae.metadata["layer"] = 1
    chosen_sae.save(DPATH / "sae")
    arrays.make_codes()
    numbers = pd.DataFrame({"latent": [3, 7], "step": [1, 2], "mean": -0.1, "low": -0.2, "high": -0.05, "p_max_t": 0.0})
    for kind in (*get_args(LatentList), "latents"):
        numbers[COLUMNS].to_csv(DPATH / f"{kind}.csv", index=False)
    tests = pd.DataFrame({"latent": range(D_SAE), "mean_cls": 0.1, "mean_patch": 0.2, "firing": 0.5, "eff_mean": -0.1})
    tests.to_csv(DPATH / "tests.csv", index=False)
    chosen = {
        "layer": 1,
        "expansion": 2,
        "list": "bias",
        "latents": [3, 7],
        "losing": "semi_nude",
        "gap": {"estimate": 0.5, "low": 0.3, "high": 0.7},
        "skill": 0.9,
        "why": "the largest net gain",
    }
    (DPATH / "selection.json").write_text(json.dumps(chosen))


def damage(rng: Generator) -> Damage:
    tables = [DPATH / name for name in ("bias.csv", "perception.csv", "latents.csv", "tests.csv")]
    kind = pick(rng, ("json", "json", "table", "table", "file", "sae"))
    if kind == "json":
        return Damage(spoil_json(DPATH / "selection.json", rng), (str(DPATH),))
    if kind == "sae":
        return sae.damage(rng, DPATH / "sae")
    fpath = pick(rng, tables)
    if kind == "file":
        return Damage(spoil_file(pick(rng, [*tables, DPATH / "selection.json"]), rng), (str(DPATH),))
    table = pd.read_csv(fpath).astype(object)
    column = pick(rng, table.columns)
    table.loc[int(rng.integers(len(table))), column] = what = pick(
        rng, ("", "x", -1, 10**9, 0.5, "nan", "inf", 2**70, 3)
    )
    (table.drop(columns=column) if rng.random() < 0.2 else table).to_csv(fpath, index=False)
    return Damage(f"{fpath}: {column} {what!r}", (str(DPATH),))


def use() -> str:
    chosen = selection.load(DPATH, arrays.CODES_DPATH.parent)
    assert chosen.layer >= 1 and chosen.edited_list in get_args(EditedLatents)
    assert np.isin(chosen.latents, np.arange(chosen.sae.d_sae)).all()
    assert len(set(chosen.latents)) == len(chosen.latents), chosen.latents
    assert chosen.means.shape == (2, chosen.sae.d_sae) and np.isfinite(chosen.means).all()
    assert chosen.pooled.effect.shape[1] == chosen.sae.d_sae
    for table in chosen.lists.values():
        assert list(table.columns) == COLUMNS and table["latent"].isin(range(chosen.sae.d_sae)).all()
        assert np.isfinite(table.to_numpy(dtype=np.float64)).all()
    return digest(chosen.means)

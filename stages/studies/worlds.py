"""The planted worlds of the sweep: what is planted, and which condition loses by it.

Each world is the default study with some parameters changed. One of them can be run alone, such as

    dvc exp run -S demo.biased=clothed -S demo.bias=0.5
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stages.core.run.labels import CLOTHED, SEMI_NUDE

FIRST_SEED = 101
N_MAPPED = 3  # runs of a mapped world for which heatmaps are drawn and checked, too
SMALL_GRID = {"grid.layers": [3, 4], "grid.expansions": [16]}
ONE_SAE = {"grid.layers": [4], "grid.expansions": [8]}  # for many CLIPs without a bias
HARD = {"world.ambiguity": 0.8}
SHAPE_OF_SOBEM = {
    "ingest.emotions": ["happy", "sad", "angry", "neutral"],
    "world.n_women": 20,
    "world.intensities": [0.6, 1.0],
    "world.retaken": True,
}


@dataclass(frozen=True)
class World:
    """A planted world."""

    title: str
    """What is planted, in words."""
    loses: str
    """The condition that the planted bias harms, `semi_nude` or `clothed`. `none`: neither. `slight`: it harms
    semi-nude women by less than may be seen."""
    n_seeds: int
    """Number of runs. Each has its own women, CLIP and SAEs."""
    values: dict[str, Any]
    """Parameters that differ from the default study, by `section.key`."""
    mapped: bool = False
    """Whether heatmaps of the first N_MAPPED runs are drawn and checked, too."""


def _cue(bias: float, biased: str = SEMI_NUDE) -> dict[str, Any]:
    return {"demo.plant": "cue", "demo.bias": bias, "demo.biased": biased, **SMALL_GRID}


def _lost(bias: float, biased: str = SEMI_NUDE) -> dict[str, Any]:
    return {"demo.plant": "lost", "demo.bias": bias, "demo.biased": biased, **SMALL_GRID}


WORLDS = {
    "no_bias": World("nothing", "none", 30, _cue(0.0) | ONE_SAE, mapped=True),
    "no_bias_hard": World("nothing, hard faces", "none", 30, _cue(0.0) | HARD | ONE_SAE),
    "cue_5": World("cue .05", "slight", 3, _cue(0.05)),
    "cue_30": World("cue .3", SEMI_NUDE, 3, _cue(0.3), mapped=True),
    "cue_60": World("cue .6", SEMI_NUDE, 3, _cue(0.6), mapped=True),
    "cue_90": World("cue .9", SEMI_NUDE, 5, _cue(0.9), mapped=True),
    "cue_60_hard": World("cue .6, hard faces", SEMI_NUDE, 3, _cue(0.6) | HARD),
    "cue_90_hard": World("cue .9, hard faces", SEMI_NUDE, 3, _cue(0.9) | HARD),
    "clothed_cue_50": World("cue .5, clothed women", CLOTHED, 3, _cue(0.5, CLOTHED)),
    "clothed_cue_90": World("cue .9, clothed women", CLOTHED, 3, _cue(0.9, CLOTHED)),
    "both_lost_30": World("lost signal .3, all women", "none", 3, _lost(0.3, "both")),
    "lost_90": World("lost signal .9", SEMI_NUDE, 3, _lost(0.9)),
    "lost_90_hard": World("lost signal .9, hard faces", SEMI_NUDE, 3, _lost(0.9) | HARD),
    "clothed_lost_90": World("lost signal .9, clothed women", CLOTHED, 3, _lost(0.9, CLOTHED)),
    "sobem_no_bias": World("nothing, 20 women in two takes", "none", 3, _cue(0.0) | SHAPE_OF_SOBEM),
    "sobem_cue_90": World("cue .9, 20 women in two takes", SEMI_NUDE, 3, _cue(0.9) | SHAPE_OF_SOBEM),
}

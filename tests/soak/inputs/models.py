"""Models on disk: a configuration as JSON beside weights as safetensors."""

from __future__ import annotations

from pathlib import Path

import torch
from numpy.random import Generator
from safetensors.torch import load_file, save_file

from tests.soak.damage import pick, spoil_file, spoil_json


def damage_model(kind: str, config: Path, weights: Path, rng: Generator) -> str:
    """`config` and `tensors` damage what these two files hold, `config file` and `weights` the files."""
    if kind == "tensors":
        return damage_tensors(weights, rng)
    if kind == "config":
        return spoil_json(config, rng)
    return spoil_file({"config file": config, "weights": weights}[kind], rng)


def damage_tensors(fpath: Path, rng: Generator) -> str:
    """One tensor of a safetensors file missing, added, of another shape, type or with values that are no numbers."""
    tensors = load_file(fpath)
    name = pick(rng, tensors)
    value = tensors[name].flatten()[: int(rng.integers(1, 9))]
    kind, spoilt = pick(
        rng,
        {
            "missing": {},
            "empty": {name: value[:0]},
            "flat": {name: tensors[name].flatten().contiguous()},
            "shorter": {name: value.clone()},
            "scalar": {name: value[0].clone()},
            "turned": {name: tensors[name].T.contiguous() if tensors[name].ndim == 2 else value.clone()},
            "NaN": {name: torch.full_like(tensors[name], float("nan"))},
            "infinite": {name: torch.full_like(tensors[name], -float("inf"))},
            "too large": {name: tensors[name].double() + 1e300},
            "int64": {name: tensors[name].long()},
            "bool": {name: tensors[name] > 0},
            "complex": {name: tensors[name].to(torch.complex64)},
            "float8": {name: tensors[name].to(torch.float8_e4m3fn)},
            "half": {name: tensors[name].half()},
            "added": {name: tensors[name], "surplus": value.clone()},
        }.items(),
    )
    del tensors[name]
    tensors = {} if rng.random() < 0.05 else tensors | spoilt
    fpath.unlink()
    save_file(tensors, fpath)
    return f"{name} {kind}"

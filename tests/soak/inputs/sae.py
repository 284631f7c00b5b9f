"""Sparse autoencoders."""

from __future__ import annotations

from pathlib import Path

import torch
from numpy.random import Generator

from stages import train_sae
from stages.core.run.params import Point
from stages.core.sae import JumpReLUSAE
from tests.soak.damage import pick
from tests.soak.inputs.kinds import D_IN, D_SAE, Damage, digest
from tests.soak.inputs.models import damage_model

DPATH = Path("data/pretrained/l2_x2")


def random_sae() -> JumpReLUSAE:
    sae = JumpReLUSAE(D_IN, D_SAE)
    generator = torch.Generator().manual_seed(0)
    for parameter in sae.parameters():
        parameter.data = torch.rand(parameter.shape, generator=generator)
    return sae.requires_grad_(False)


def make() -> None:
    random_sae().save(DPATH)


def damage(rng: Generator, directory: Path = DPATH) -> Damage:
    kind = pick(rng, ("tensors", "tensors", "config", "config", "weights", "config file"))
    what = damage_model(kind, directory / "cfg.json", directory / "sae_weights.safetensors", rng)
    return Damage(what, (str(directory),))


def use() -> str:
    sae = train_sae.pretrained(Point(2, D_SAE // D_IN), D_IN)
    assert all(parameter.dtype == torch.float32 for parameter in sae.parameters())
    assert sae(torch.zeros(3, D_IN)).shape == (3, D_IN)
    return digest(*sae.state_dict().values())

"""A study of random weights, opened in the explorer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from stages.core.explorer.answers import Explorer
from stages.core.latents.pooling import Pooling
from stages.core.latents.selection import Selection
from stages.core.run import params
from stages.core.schema import DescribeLatents, Edit, Inference
from tests.imports import ROOT

BIAS, PERCEPTION = [3, 7, 11], [7, 20]


def listed(latents: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"latent": latents, "step": 1, "mean": 0.1, "low": 0.05, "high": 0.2, "p_max_t": 0.001})


@pytest.fixture
def chosen(spliced, tmp_path) -> Selection:
    n = spliced.sae.d_sae
    pooling = Pooling(16, n, np.ones(16, dtype=bool))
    with torch.no_grad():
        f = spliced.sae.encode(torch.from_numpy(spliced.activations.read(np.arange(16))))
        pooling.add(f, torch.zeros(16, n))
    pooling.result().save(tmp_path / "pooled.zarr")
    numbers = {
        f"{test}_{name}": np.arange(n) / n for test in ("eff", "act") for name in ("mean", "low", "high", "p_max_t")
    }
    tests = pd.DataFrame({"latent": range(n), "mean_cls": 0.1, "mean_patch": 0.2, "firing": 0.3, **numbers})
    lists = {"bias": listed(BIAS), "perception": listed(PERCEPTION)}
    latents = [3, 11]  # the search set latent 7 aside
    edited, pooled_dpath = listed(latents), tmp_path / "pooled.zarr"
    return Selection(2, "semi_nude", "bias", edited, lists, tests, spliced.sae, pooled_dpath)


@pytest.fixture
def study(spliced, chosen) -> Explorer:
    edit, describe, inference = params.load(Edit, DescribeLatents, Inference, fpath=ROOT / "params.yaml")
    describe = describe.model_copy(update={"prompts": ["a {emotion} woman", "a flower"]})
    return Explorer(spliced, chosen, edit, describe, inference, max_pixels=5e7)

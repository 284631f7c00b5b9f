"""The share of latents that come back when the chosen SAE is trained again."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from stages import check_stability
from stages.core.run import params
from stages.core.sae import SAEError
from stages.core.schema import TrainSae
from stages.core.training import Normalisation, train
from stages.core.training.batches import InMemory
from stages.core.training.checkpoint import Checkpoint
from stages.core.training.token_source import train_config
from tests import warm
from tests.imports import ROOT
from tests.studies import change_params


def test_a_training_with_the_same_seed_finds_every_latent_again_and_another_seed_fewer(tmp_path):
    config = params.load(TrainSae, fpath=ROOT / "params.yaml").model_copy(update={"steps": 30, "batch_size": 64})
    raw = torch.randn(640, 12, generator=torch.Generator().manual_seed(0))
    tokens, normalisation = InMemory(raw, 64, config.seed), Normalisation.from_tokens(raw)
    sae, _ = train(tokens, train_config(config, 24, seed=0), normalisation)
    again, other = check_stability.matched_shares(
        sae.W_dec, tokens, normalisation, config, range(2), Checkpoint(tmp_path / "kept")
    )
    assert again == 1 and 0 <= other < 1


def test_an_sae_that_names_no_layer_is_refused(tiny_sae):
    tiny_sae.metadata["layer"] = 3
    assert check_stability.chosen_layer(tiny_sae) == 3
    tiny_sae.metadata["layer"] = "3"
    with pytest.raises(SAEError, match="name no layer"):
        check_stability.chosen_layer(tiny_sae)


def test_what_is_measured_by_the_number_of_seeds():
    assert check_stability.measure([]) == {"n_other_seeds": 0}
    found = check_stability.measure([0.1, 0.4])
    assert found == {
        "n_other_seeds": 2,
        "matched_share": pytest.approx(0.25),
        "least_matched_share": 0.1,
        "largest_matched_share": 0.4,
    }


def test_no_other_seed_is_tried_where_none_is_asked_for_or_the_sae_is_from_elsewhere(studies, tmp_path):
    folder = shutil.copytree(studies["synthetic"], tmp_path / "copy", ignore=shutil.ignore_patterns(".dvc", ".git"))
    for changes in ({"check_stability": {"n_other_seeds": 0}}, {"train_sae": {"source": "pretrained"}}):
        change_params(folder, changes)
        warm.run(folder, "stages.check_stability")
        assert json.loads((folder / "metrics" / "check_stability.json").read_text()) == {"n_other_seeds": 0}
        change_params(folder, {"check_stability": {"n_other_seeds": 1}})

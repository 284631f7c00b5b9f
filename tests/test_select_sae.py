"""Which SAEs are searched."""

from __future__ import annotations

import pandas as pd
import pytest

from stages.core.run import params
from stages.core.schema import Edit, SelectSae
from stages.select_sae import shortlist
from tests.imports import ROOT

CONFIG, EDIT = params.load(SelectSae, Edit, fpath=ROOT / "params.yaml")
LAYERS = pd.DataFrame(
    {
        "layer": [4, 4, 4, 3, 3, 3, 2, 2, 2],
        "expansion": [2, 4, 8] * 3,
        "promise": [0.9, 0.8, 0.7, 0.1, 0.3, -0.2, 0.0, -0.1, 0.2],
        "n_bias": [0, 3, 0, 0, 0, 0, 2, 0, 0],
        "n_perception": [0, 0, 5, 0, 0, 1, 0, 0, 0],
        "auc_discovery": [0.5, 0.6, 0.7, 0.55, 0.5, 0.05, 0.5, 0.5, 0.9],
    }
)


@pytest.mark.parametrize(
    ("n_searched", "searched"),
    [
        (1, [0]),
        (3, [0, 4, 8]),  # of each layer the one that promises most
        (4, [0, 4, 8, 1]),  # then of each layer the next
        (9, [0, 4, 8, 1, 3, 2]),  # without those that promise nothing
    ],
)
def test_of_each_layer_the_most_promising_is_searched_whether_or_not_a_latent_is_named(n_searched, searched):
    config = CONFIG.model_copy(update={"rule": "net_gain", "n_searched": n_searched})
    assert shortlist(LAYERS, config, EDIT) == searched


def test_a_list_that_needs_no_search_is_tried_in_each_sae_that_has_one():
    config = CONFIG.model_copy(update={"rule": "net_gain", "n_searched": 1})
    assert shortlist(LAYERS, config, EDIT.model_copy(update={"latents": "perception"})) == [2, 5]


def test_the_published_rule_and_the_fixed_rule_name_one_sae():
    assert shortlist(LAYERS, CONFIG.model_copy(update={"rule": "published"}), EDIT) == [5]
    fixed = CONFIG.model_copy(update={"rule": "fixed", "layer": 3, "expansion": 4})
    assert shortlist(LAYERS, fixed, EDIT) == [4]

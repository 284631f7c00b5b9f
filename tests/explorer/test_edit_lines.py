"""The lines of params.yaml and of Python that make an edit."""

from __future__ import annotations

import pytest
import torch
import yaml

from stages.core.explorer.edit_lines import params_lines, python_lines
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.run import params
from stages.core.schema import Edit, SelectSae
from tests.imports import ROOT

EDIT, SELECT_SAE = params.load(Edit, SelectSae, fpath=ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ({3: 0.0, 11: 0.0, 20: 1.0}, {"latents": "bias", "kind": "zero", "factor": 0.0, "n_latents": 2}),
        ({11: 2.0, 3: 2.0}, {"latents": "bias", "kind": "scale", "factor": 2.0, "n_latents": 2}),
        ({7: 0.5, 3: 1.0}, {"latents": "perception", "kind": "scale", "factor": 0.5, "n_latents": 1}),
    ],
)
def test_the_first_latents_of_a_list_by_one_factor(chosen, factors, expected):
    lines = yaml.safe_load(params_lines(factors, chosen, EDIT, "cls"))
    made = Edit.model_validate(EDIT.model_dump() | lines["edit"])
    assert {key: getattr(made, key) for key in expected} == expected
    assert (made.scope, made.curve) == ("cls", [expected["n_latents"]])
    kept = SelectSae.model_validate(SELECT_SAE.model_dump() | lines["select_sae"])
    assert (kept.rule, kept.layer, kept.expansion) == ("fixed", 2, 2)


def test_the_edit_of_the_study_has_the_lines_of_the_study(chosen):
    own = EDIT.model_copy(update={"latents": "bias"})
    lines = yaml.safe_load(params_lines({11: 0.0, 3: 0.0}, chosen, own, "all"))
    assert Edit.model_validate(lines["edit"]) == own and list(lines) == ["edit"]


@pytest.mark.parametrize(
    ("factors", "says"),
    [
        ({}, "Nothing is edited"),
        ({3: 1.0}, "Nothing is edited"),
        ({3: 0.0, 7: 0.5}, "one factor for all edited latents; here are 2"),
        ({7: 0.0, 3: 0.0}, "not the first of either"),
    ],
)
def test_other_edits_have_a_comment_that_says_why(chosen, factors, says):
    lines = params_lines(factors, chosen, EDIT, "all")
    assert says in lines and yaml.safe_load(lines) is None


def test_the_lines_of_python_make_the_edit(spliced):
    found = {"LatentEdit": LatentEdit, "torch": torch, "spliced": spliced}
    exec(python_lines({3: 0.5, 5: 1.0, 7: 2.0}, "patches"), found)
    x = spliced.batch(torch.arange(2).numpy())
    f = spliced.sae.encode(x.tokens)
    change = 1.0 * f[..., 7:8] * spliced.sae.W_dec[7] - 0.5 * f[..., 3:4] * spliced.sae.W_dec[3]
    change[:, 0] = 0
    assert torch.allclose(found["arm"](x), x.tokens + change, atol=1e-5)

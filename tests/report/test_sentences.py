"""The report's sentences follow the numbers: what was found, what was not, and whether the heatmap agrees."""

from __future__ import annotations

import pytest

from stages.core.report import sentences
from stages.core.run import params
from stages.core.schema import Clip, Demo, Inference, Ingest
from tests.imports import ROOT

INFERENCE = params.load(Inference, fpath=ROOT / "params.yaml")


def found(estimate: float, low: float, high: float) -> dict[str, float]:
    return {"estimate": estimate, "low": low, "high": high}


def metrics(gap=(0.6, 0.5, 0.7), gain=(0.4, 0.3, 0.5), lift=((-0.5, -0.6, -0.4), (-0.1, -0.2, 0.0)), skill=0.9) -> dict:
    accuracy = {"clothed": found(0.9, 0.8, 1.0), "semi_nude": found(0.3, 0.2, 0.4), "gap": found(*gap)}
    edit = {"semi_nude_gain": found(*gain), "clothed_loss": found(0.01, 0.0, 0.02), "p_random_sets": 0.005}
    return {
        "ablate": {
            "accuracy": {"original": accuracy},
            "edit": {"accuracy": edit, "R": edit},
            "guardrails": {"readout_skill": skill},
        },
        "extract": {"accuracy": {"chance": 0.25}},
        "select_sae": {"d_sae": 2048, "n_perception": 117.0, "n_bias": 0.0},
        "heatmap": {
            arm: {"bust_energy_lift": {"gap": found(*g)}} for arm, g in zip(("original", "edited"), lift, strict=True)
        },
    }


def test_a_gap_and_its_edit_are_told_with_interval_and_controls():
    says = sentences.finding(metrics(), {"latents": [1, 2], "layer": 4}, INFERENCE)
    assert "on 90 % [80, 100] of the images of women in a shirt, but on 30 % [20, 40] of the images" in says
    assert "30 % [20, 40] of the images of the same women semi-nude" in says
    assert "Editing 2 of 2,048 latents after block 4 changes accuracy on semi-nude images by 40 points [30, 50]" in says
    assert "(p = 0.005 against matched random sets of latents)" in says
    assert "and lowers accuracy on clothed images by 1 points [0, 2]" in says


def test_nothing_to_edit_is_the_first_thing_said():
    says = sentences.finding(metrics(gap=(0.0, -0.1, 0.1)), {"latents": [], "layer": 4}, INFERENCE)
    assert says.startswith(
        "No bias latents were found. After block 4, 117 of 2,048 latents are more active on semi-nude women, "
        "but no latent"
    )
    assert "by more than 0.01 nats (family-wise error rate 0.005). No emotion gap was found: clothed minus" in says


def test_a_model_that_reads_no_face_is_said_to_have_no_readout():
    says = sentences.finding(metrics(skill=0.1), {"latents": [1], "layer": 4}, INFERENCE)
    assert says.startswith("This CLIP does not read faces") and "where chance is 25%" in says


def test_bias_latents_whose_every_edit_costs_too_much_are_told():
    with_bias = metrics()
    with_bias["select_sae"]["n_bias"] = 3.0
    says = sentences.finding(with_bias, {"latents": [], "layer": 4}, INFERENCE)
    assert "Bias latents were found (3 of 2,048 after block 4), but every edit of them costs" in says


def test_how_many_latents_come_back_is_told_where_another_seed_was_tried():
    tried = {"n_other_seeds": 1, "matched_share": 0.05}
    says = sentences.stability({"check_stability": tried})
    assert says.startswith("Trained again with another seed, the chosen SAE has 5 % of its latents again")
    assert "with 3 other seeds" in sentences.stability({"check_stability": tried | {"n_other_seeds": 3}})
    assert sentences.stability({"check_stability": {"n_other_seeds": 0}}) == ""


def test_what_the_edited_latents_encode_is_told_with_the_planted_features_rank():
    found = {"edited_latents": {"encode_condition": 0.0, "encode_emotion": 0.25, "encode_colour": 0.75}}
    says = sentences.described({"describe_latents": found})
    assert says == (
        "The label that explains most of an edited latent's activation is the top's colour for 75 % of them, "
        "the face for 25 % of them. "
    )
    planted = {"planted_feature": {"best_rank": 1, "worst_rank": 6}}
    assert "ranks 1 to 6" in sentences.described({"describe_latents": found | planted})
    none = {"edited_latents": {"encode_condition": 0.0, "encode_emotion": 0.0}}
    assert sentences.described({"describe_latents": none}) == ""


@pytest.mark.parametrize(
    ("gain", "lift", "says"),
    [
        ((0.4, 0.3, 0.5), ((-0.5, -0.6, -0.4), (-0.1, -0.2, 0.0)), "Readout and heatmap move together"),
        (
            (0.4, 0.3, 0.5),
            ((-0.1, -0.2, -0.05), (-0.9, -1.0, -0.8)),
            "does not shrink: here the heatmap does not measure the bias",
        ),
        ((0.4, 0.3, 0.5), ((-0.1, -0.2, 0.0), (0.6, 0.5, 0.8)), "the original heatmap shows no negative gap"),
        ((0.0, -0.1, 0.1), ((-0.5, -0.6, -0.4), (-0.1, -0.2, 0.0)), "The readout does not recover"),
    ],
)
def test_a_heatmap_that_moves_is_not_yet_a_bias_that_shrank(gain, lift, says):
    assert says in sentences.heatmaps(metrics(gain=gain, lift=lift))


def test_the_planted_truth_is_told_only_where_it_was_planted():
    ingest, clip, demo = params.load(Ingest, Clip, Demo, fpath=ROOT / "params.yaml")
    assert "with probability 0.9" in sentences.truth(ingest, clip, demo)
    assert sentences.truth(ingest.model_copy(update={"source": "folder"}), clip, demo) == ""

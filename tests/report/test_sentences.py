"""The report's sentences follow the numbers: what was found, what was not, and whether the heatmap agrees."""

from __future__ import annotations

import pytest

from stages.core.report import sentences
from stages.core.training.sae_metrics import MATCHING_COSINE
from tests.report.made import maps_of_R, metrics, random_sets, selection


def test_the_match_of_the_random_sets_is_told_and_its_lack_is_too():
    found = metrics()
    found["ablate"]["random_sets"] = random_sets(length=18.36)
    says = sentences.random_sets(found)
    assert "In each of these totals, the median set differs from the edited set by 2.0 % at most." in says
    assert "may hold up to half of the edited latents; the median set holds 11 of 25." in says
    found["ablate"]["random_sets"] = random_sets(length=9.0)
    del found["ablate"]["edit"]["R"]["p_random_sets"]
    says = sentences.random_sets(found)
    assert says.startswith("The edited set is not compared with random sets of latents")
    assert "length of the edit at the class token: 18 for the edited set, 9 for the median random set." in says
    found["ablate"]["random_sets"] = {}
    assert sentences.random_sets(found) == ""


def test_without_random_sets_that_are_alike_none_is_named():
    found = metrics()
    relied = {region: {"R": {"semi_nude": {"estimate": 1.0, "low": 0.5, "high": 1.5}}} for region in ("bust", "face")}
    found["ablate"]["reliance"] = {"original": relied, "edited": relied}
    found["ablate"]["guardrails"]["edited_patches_largest_R_change"] = 0.2
    edit = found["ablate"]["edit"]
    edit["bust_reliance"] = {"p_random_sets": 0.3}
    edit["R"]["best_random_set"] = 0.1
    says = sentences.causal(found, selection(), 200)
    assert "The best of 200 matched random sets of latents raises R of semi-nude women by 0.10 nats." in says
    assert "after it (p = 0.300 for this fall, against random sets). Greying out the face" in says
    del edit["R"]["best_random_set"], edit["bust_reliance"]["p_random_sets"]
    says = sentences.causal(found, selection(), 200)
    assert "random" not in says and "nats after it. Greying out the face" in says


def test_how_many_latents_come_back_is_told_where_another_seed_was_tried():
    tried = {"n_other_seeds": 1, "matched_share": 0.05}
    says = sentences.stability({"check_stability": tried})
    assert says.startswith("Trained again with another seed, the chosen SAE has 5 % of its latents again")
    assert f"decoder directions with a cosine of at least {MATCHING_COSINE}" in says
    assert "with 3 other seeds" in sentences.stability({"check_stability": tried | {"n_other_seeds": 3}})
    assert sentences.stability({"check_stability": {"n_other_seeds": 0}}) == ""


def test_what_the_edited_latents_encode_is_told_with_the_planted_features_rank():
    found = {
        "edited_latents": {
            "encode_condition": 0.0,
            "encode_emotion": 0.25,
            "encode_colour": 0.75,
            "encode_identity": 0.0,
        }
    }
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
    assert says in sentences.heatmaps(metrics(gain=gain, lift=lift), selection())


def test_what_the_bust_adds_to_R_is_told_beside_the_control_and_the_edit():
    says = sentences.readout_maps(maps_of_R("original", "edited"), selection())
    assert "On 48 images of 24 women, the bust adds -1.00 [-1.10, -0.90] nats to R of semi-nude and 0.00" in says
    assert "is 1.00 [0.80, 1.20] nats, and 0.00 [-0.20, 0.20] on equal areas outside bust and face" in says
    assert says.endswith("With the edit, the gap of the bust is 0.25 [0.05, 0.45] nats.")
    alone = sentences.readout_maps(maps_of_R("original"), selection(()))
    assert alone.endswith("Nothing was edited, so these are maps of the original model alone.")
    assert alone.split(" Nothing")[0] == says.split(" With")[0]

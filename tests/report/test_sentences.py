"""The report's sentences follow the numbers: what was found, what was not, and whether the heatmap agrees."""

from __future__ import annotations

import pytest

from stages.core.ablation.arms import ARMS
from stages.core.report import sentences, tables
from stages.core.run import params
from stages.core.schema import Clip, Demo, Inference, Ingest, TrainSae
from tests.imports import ROOT

INFERENCE = params.load(Inference, fpath=ROOT / "params.yaml")


def found(estimate: float, low: float, high: float) -> dict[str, float]:
    return {"estimate": estimate, "low": low, "high": high}


def metrics(gap=(0.6, 0.5, 0.7), gain=(0.4, 0.3, 0.5), lift=((-0.5, -0.6, -0.4), (-0.1, -0.2, 0.0)), skill=0.9) -> dict:
    accuracy = {"clothed": found(0.9, 0.8, 1.0), "semi_nude": found(0.3, 0.2, 0.4), "gap": found(*gap)}
    edit = {"gain": found(*gain), "cost": found(0.01, 0.0, 0.02), "p_random_sets": 0.005}
    return {
        "ablate": {
            "accuracy": {"original": accuracy},
            "edit": {"accuracy": edit, "R": edit},
            "null_searches": {"labels_swapped": {"n": 40, "p_accuracy": 1 / 41}},
            "guardrails": {"readout_skill": skill},
        },
        "extract": {"accuracy": {"chance": 0.25}},
        "select_sae": {"d_sae": 2048, "n_perception": 117.0, "n_bias": 0.0},
        "heatmap": {
            arm: {"bust_energy_lift": {"gap": found(*g)}} for arm, g in zip(("original", "edited"), lift, strict=True)
        },
    }


def selection(latents=(1, 2), losing="semi_nude", gap=(2.0, 1.8, 2.2)) -> dict:
    return {"latents": list(latents), "layer": 4, "list": "bias", "losing": losing, "gap": found(*gap)}


def test_a_gap_and_its_edit_are_told_with_interval_and_the_same_search_on_swapped_labels():
    says = sentences.finding(metrics(), selection(), INFERENCE, 4)
    assert "on 90 % [80, 100] of the images of women in a shirt, but on 30 % [20, 40] of the images" in says
    assert "30 % [20, 40] of the images of the same women semi-nude" in says
    assert "Editing 2 of 2,048 latents after block 4 raises accuracy on semi-nude women by 40 points [30, 50]" in says
    assert "(p = 0.024 against 40 such searches on swapped labels, the smallest possible being 0.024)" in says
    assert "and lowers it on women in a shirt by 1 point [0, 2]" in says
    without = metrics()
    without["ablate"]["null_searches"] = {}
    assert "(p = 0.005 against matched random sets" in sentences.finding(without, selection(), INFERENCE, 4)
    del without["ablate"]["edit"]["accuracy"]["p_random_sets"]
    assert "by 40 points [30, 50] and lowers it" in sentences.finding(without, selection(), INFERENCE, 4)


def compared(edited: float, median: float) -> dict[str, float]:
    return {"edited": edited, "median": median, "low": 0.9 * median, "high": 1.1 * median, "rank": 7.0}


def random_sets(length: float) -> dict[str, dict[str, float]]:
    return {
        "contribution": compared(2.0, 1.98) | {"difference": -0.01},
        "length_cls": compared(18.0, length) | {"difference": length / 18 - 1},
        "edited_latents": compared(25.0, 11.0),
    }


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


def test_the_table_of_random_sets_has_a_row_per_total():
    table = tables.random_sets({"ablate": {"random_sets": random_sets(length=17.5)}}).set_index("quantity")
    row = table.loc["length of the edit at the class token"]
    assert row.tolist() == ["18", "15.75", "17.5", "19.25", "7"]
    assert table.loc["edited latents in the set", "50 % of random sets"] == "11"


@pytest.mark.parametrize(
    ("estimate", "says"), [(0.01, "1 point"), (-0.014, "-1 point"), (0.016, "2 points"), (0.0, "0 points")]
)
def test_one_point_is_singular(estimate, says):
    assert sentences.points(found(estimate, 0.0, 0.02)) == f"{says} [0, 2]"


def test_a_gap_the_other_way_is_told_the_other_way():
    says = sentences.finding(metrics(gap=(-0.6, -0.7, -0.5)), selection(losing="clothed"), INFERENCE, 4)
    assert "of the images of women semi-nude, but on 90 % [80, 100] of the images of the same women in a shirt" in says
    assert "raises accuracy on women in a shirt by 40 points" in says and "lowers it on semi-nude women by" in says


def test_without_a_gap_nothing_is_named_and_the_reason_is_told():
    none = selection((), "none", (0.02, -0.05, 0.09))
    says = sentences.finding(metrics(gap=(0.0, -0.1, 0.1)), none, INFERENCE, 0)
    assert says.startswith("No emotion gap was found: clothed minus semi-nude accuracy is 0 points [-10, 10].")
    assert "No latent was named and none was edited" in says and "by 0.02 [-0.05, 0.09] nats" in says


def test_a_gap_without_a_bias_latent_is_told():
    says = sentences.finding(metrics(), selection(()), INFERENCE, 0)
    assert "No bias latents were found: after block 4, none of 2,048 latents is shown to differ" in says
    assert "(family-wise error rate 0.005). 117 are more active on semi-nude women. No edit was tried." in says


def test_a_model_that_reads_no_face_is_said_to_have_no_readout():
    says = sentences.finding(metrics(skill=0.1), selection(), INFERENCE, 4)
    assert says.startswith("This CLIP does not read faces") and "where chance is 25%" in says


def test_edits_that_did_not_help_are_told_only_where_some_were_tried():
    with_bias = metrics()
    with_bias["select_sae"]["n_bias"] = 3.0
    says = sentences.finding(with_bias, selection(()), INFERENCE, 4)
    assert "Edits were tried in 4 SAEs on the women used for choosing, but none helped" in says
    assert says.endswith("So nothing was edited.")
    assert "tried in 1 SAE on" in sentences.finding(with_bias, selection(()), INFERENCE, 1)
    assert "helped" not in sentences.finding(metrics(), selection(()), INFERENCE, 0)


@pytest.mark.parametrize(
    ("value", "digits", "sign", "says"),
    [
        (-0.001, 2, "", "0.00"),
        (-0.0, 0, "+", "0"),
        (0.004, 2, "+", "0.00"),
        (-0.006, 2, "", "-0.01"),
        (1, 0, "+", "+1"),
    ],
)
def test_zero_has_no_sign(value, digits, sign, says):
    assert sentences.fixed(value, digits, sign) == says


def test_an_interval_around_nothing_has_no_minus():
    assert sentences.number(found(-0.001, -0.002, 0.002)) == "0.00 [0.00, 0.00]"
    assert sentences.points(found(-0.001, -0.002, 0.002)) == "0 points [0, 0]"
    assert sentences.percent(found(-0.0, -0.0, 0.01)) == "0 % [0, 1]"


def test_numbers_that_underflow_are_not_shown_as_measured_zeros():
    assert (tables.power(0.0), tables.power(1.04e-9)) == ("< 1e-300", "1.04e-09")
    assert tables.mean_and_spread(0.0, 0.0) == "0 ± 0"


def test_arms_that_say_something_without_an_edit_are_the_same_for_table_and_figure():
    unedited = [name for name, entry in ARMS.items() if entry.without_edit]
    assert [*unedited, "bust_greyed", "face_greyed"] == list(tables.WITHOUT_EDIT)


def test_how_many_latents_come_back_is_told_where_another_seed_was_tried():
    tried = {"n_other_seeds": 1, "matched_share": 0.05}
    says = sentences.stability({"check_stability": tried})
    assert says.startswith("Trained again with another seed, the chosen SAE has 5 % of its latents again")
    assert "with 3 other seeds" in sentences.stability({"check_stability": tried | {"n_other_seeds": 3}})
    assert sentences.stability({"check_stability": {"n_other_seeds": 0}}) == ""


def test_an_sae_that_saw_the_women_of_the_claims_is_owned_up_to():
    training = params.load(TrainSae, fpath=ROOT / "params.yaml")
    assert sentences.seen_in_training(training) == ""
    audit = training.model_copy(update={"train_on": "audit"})
    assert "were trained on the images of all women, these women included" in sentences.seen_in_training(audit)
    elsewhere = audit.model_copy(update={"source": "pretrained"})
    assert "is not known here" in sentences.seen_in_training(elsewhere)


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


def maps_of_R(*arms: str) -> dict:
    """Occlusion sums: the bust takes 1 nat from semi-nude women; with the edit it takes 0.25."""
    by_condition = {"clothed": found(0.0, -0.1, 0.1), "gap": found(0.0, -0.2, 0.2), "semi_nude": found(0.0, -0.1, 0.1)}
    loss = {"original": 1.0, "edited": 0.25}
    sums = {
        arm: {
            **{f"{place}_sum": by_condition for place in ("bust_control", "face", "face_control")},
            "bust_sum": by_condition
            | {
                "semi_nude": found(-loss[arm], -loss[arm] - 0.1, -loss[arm] + 0.1),
                "gap": found(loss[arm], loss[arm] - 0.2, loss[arm] + 0.2),
            },
        }
        for arm in arms
    }
    return {"map_readout": {"images": {"mapped": 48.0, "women": 24.0}, "maps": {"occlusion": sums}}}


def test_what_the_bust_adds_to_R_is_told_beside_the_control_and_the_edit():
    says = sentences.readout_maps(maps_of_R("original", "edited"), selection())
    assert "On 48 images of 24 women, the bust adds -1.00 [-1.10, -0.90] nats to R of semi-nude and 0.00" in says
    assert "is 1.00 [0.80, 1.20] nats, and 0.00 [-0.20, 0.20] on equal areas outside bust and face" in says
    assert says.endswith("With the edit, the gap of the bust is 0.25 [0.05, 0.45] nats.")
    alone = sentences.readout_maps(maps_of_R("original"), selection(()))
    assert alone.endswith("Nothing was edited, so these are maps of the original model alone.")
    assert alone.split(" Nothing")[0] == says.split(" With")[0]


def test_the_table_of_regions_has_bust_face_and_equal_areas_of_each_model():
    table = tables.region_sums(maps_of_R("original", "edited"))
    regions = ["bust", "elsewhere, area of the bust", "face", "elsewhere, area of the face"]
    assert table["region"].tolist() == 2 * regions and table["model"].tolist() == 4 * ["original"] + 4 * ["edited"]
    assert table.loc[0, "semi-nude":].tolist() == ["-1.00 [-1.10, -0.90]", "0.00 [-0.10, 0.10]", "1.00 [0.80, 1.20]"]
    assert table.loc[4, "gap"] == "0.25 [0.05, 0.45]"
    assert tables.region_sums(maps_of_R("original"))["region"].tolist() == regions


def test_the_planted_truth_is_told_only_where_it_was_planted():
    ingest, clip, demo = params.load(Ingest, Clip, Demo, fpath=ROOT / "params.yaml")
    assert "with probability 0.9" in sentences.truth(ingest, clip, demo)
    assert "a semi-nude woman follows the colour of her garment" in sentences.truth(ingest, clip, demo)
    lost = demo.model_copy(update={"plant": "lost", "biased": "clothed"})
    assert "the emotion of a woman in a shirt is drawn at random" in sentences.truth(ingest, clip, lost)
    assert sentences.truth(ingest.model_copy(update={"source": "folder"}), clip, demo) == ""

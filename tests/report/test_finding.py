"""The head of the report follows the numbers: what was found, what was edited and why not, and what was planted."""

from __future__ import annotations

from stages.core.report import finding
from stages.core.run import params
from stages.core.schema import Clip, Demo, Inference, Ingest, TrainSae
from tests.imports import ROOT
from tests.report.made import metrics, selection

INFERENCE = params.load(Inference, fpath=ROOT / "params.yaml")


def test_a_gap_and_its_edit_are_told_with_interval_and_the_same_search_on_swapped_labels():
    says = finding.finding(metrics(), selection(), INFERENCE, 4)
    assert "on 90 % [80, 100] of the images of women in a shirt, but on 30 % [20, 40] of the images" in says
    assert "30 % [20, 40] of the images of the same women semi-nude" in says
    assert "Editing 2 of 2,048 latents after block 4 raises accuracy on semi-nude women by 40 points [30, 50]" in says
    assert "(p = 0.024 against 40 such searches on swapped labels, the smallest possible being 0.024)" in says
    assert "and lowers it on women in a shirt by 1 point [0, 2]" in says
    without = metrics()
    without["ablate"]["null_searches"] = {}
    assert "(p = 0.005 against matched random sets" in finding.finding(without, selection(), INFERENCE, 4)
    del without["ablate"]["edit"]["accuracy"]["p_random_sets"]
    assert "by 40 points [30, 50] and lowers it" in finding.finding(without, selection(), INFERENCE, 4)


def test_a_gap_the_other_way_is_told_the_other_way():
    says = finding.finding(metrics(gap=(-0.6, -0.7, -0.5)), selection(losing="clothed"), INFERENCE, 4)
    assert "of the images of women semi-nude, but on 90 % [80, 100] of the images of the same women in a shirt" in says
    assert "raises accuracy on women in a shirt by 40 points" in says and "lowers it on semi-nude women by" in says


def test_without_a_gap_nothing_is_named_and_the_reason_is_told():
    none = selection((), "none", (0.02, -0.05, 0.09))
    says = finding.finding(metrics(gap=(0.0, -0.1, 0.1)), none, INFERENCE, 0)
    assert says.startswith("No emotion gap was found: clothed minus semi-nude accuracy is 0 points [-10, 10].")
    assert "No latent was named and none was edited" in says and "by 0.02 [-0.05, 0.09] nats" in says


def test_a_gap_without_a_bias_latent_is_told():
    says = finding.finding(metrics(), selection(()), INFERENCE, 0)
    assert "No bias latents were found: after block 4, none of 2,048 latents is shown to differ" in says
    assert "(family-wise error rate 0.005). 117 are more active on semi-nude women. No edit was tried." in says


def test_a_model_that_reads_no_face_is_said_to_have_no_readout():
    says = finding.finding(metrics(skill=0.1), selection(), INFERENCE, 4)
    assert says.startswith("This CLIP does not read faces") and "where chance is 25 %" in says


def test_edits_that_did_not_help_are_told_only_where_some_were_tried():
    with_bias = metrics()
    with_bias["select_sae"]["n_bias"] = 3.0
    says = finding.finding(with_bias, selection(()), INFERENCE, 4)
    assert "Edits were tried in 4 SAEs on the women used for choosing, but none helped" in says
    assert says.endswith("So nothing was edited.")
    assert "tried in 1 SAE on" in finding.finding(with_bias, selection(()), INFERENCE, 1)
    assert "helped" not in finding.finding(metrics(), selection(()), INFERENCE, 0)


def test_an_sae_that_saw_the_women_of_the_claims_is_owned_up_to():
    training = params.load(TrainSae, fpath=ROOT / "params.yaml")
    assert finding.seen_in_training(training) == ""
    audit = training.model_copy(update={"train_on": "audit"})
    assert "were trained on the images of all women, these women included" in finding.seen_in_training(audit)
    elsewhere = audit.model_copy(update={"source": "pretrained"})
    assert "is not known here" in finding.seen_in_training(elsewhere)


def test_the_planted_truth_is_told_only_where_it_was_planted():
    ingest, clip, demo = params.load(Ingest, Clip, Demo, fpath=ROOT / "params.yaml")
    assert "with probability 0.9" in finding.truth(ingest, clip, demo)
    assert "a semi-nude woman follows the colour of her garment" in finding.truth(ingest, clip, demo)
    lost = demo.model_copy(update={"plant": "lost", "biased": "clothed"})
    assert "the emotion of a woman in a shirt is drawn at random" in finding.truth(ingest, clip, lost)
    assert finding.truth(ingest.model_copy(update={"source": "folder"}), clip, demo) == ""

"""The summary of a run in the terminal, and the numbers that `dvc metrics show metrics/ablate.json` prints."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess

import pytest

from stages import ablate
from stages.studies import summary
from tests.imports import ROOT
from tests.studies import ENV, GIT_ENV

COLUMNS = 160


def found(estimate: float, low: float, high: float) -> dict[str, float]:
    return {"estimate": estimate, "low": low, "high": high}


def accuracy(semi_nude: float, clothed: float) -> dict[str, dict[str, float]]:
    values = {"semi_nude": semi_nude, "clothed": clothed, "gap": clothed - semi_nude}
    return {name: found(value, value - 0.1, value + 0.1) for name, value in values.items()}


def null(p: float, median: float, largest: float) -> dict[str, float]:
    return {"n": 40, "p_accuracy": p, "median_accuracy_gain": median, "largest_accuracy_gain": largest}


FULL = {
    "accuracy": {"original": accuracy(0.3, 0.9), "bust_greyed": accuracy(0.8, 0.88), "edited": accuracy(0.7, 0.89)},
    "R": {"original": {"gap": found(2.0, 1.8, 2.2)}, "edited": {"gap": found(0.5, 0.4, 0.6)}},
    "edit": {
        "accuracy": {"gain": found(0.4, 0.3, 0.5), "cost": found(0.01, -0.01, 0.03), "p_random_sets": 0.005},
        "R": {"gain": found(1.5, 1.2, 1.8), "cost": found(0.1, 0.0, 0.2)},
    },
    "null_searches": {
        "labels_swapped": null(0.049, 0.2, 0.39),
        "wrong_emotion": null(0.024, 0.1, 0.2),
        "condition_ignored": {"n": 1, "median_accuracy_gain": 0.3, "largest_accuracy_gain": 0.3},
    },
    "guardrails": {
        "readout_skill": 0.87,
        "cosine_to_original_semi_nude": 0.66,
        "cosine_to_original_clothed": 0.92,
        "error_kept_largest_R_change": 2.4e-7,
    },
}
SELECT = {"n_latents": 25, "d_sae": 4096, "layer": 4, "R_gap": 2.1}


def changed(**of_full) -> dict:
    return {**copy.deepcopy(FULL), **of_full}


def test_the_summary_has_finding_certainty_cost_and_calibration():
    says = summary.summary(FULL, SELECT, 0.25, 0.5)
    assert says["Finding"] == [
        "share of emotions named correctly, women held out; chance is 25 %",
        "original CLIP: 30 % [20, 40] semi-nude, 90 % [80, 100] in a shirt, gap 60 points [50, 70]",
        "bust greyed out: 80 % [70, 90] semi-nude, 88 % [78, 98] in a shirt, gap 8 points [-2, 18]",
        "edited CLIP: 70 % [60, 80] semi-nude, 89 % [79, 99] in a shirt, gap 19 points [9, 29]",
        "edit: 25 of 4,096 latents after block 4",
    ]
    assert says["How sure"] == [
        "accuracy of semi-nude women rises by 40 points [30, 50]",
        "log-probability of their true emotion rises by 1.50 [1.20, 1.80] nats",
        "p = 0.005 against random sets of latents as strong as the edit",
        "p = 0.049 against 40 searches with the twins' labels swapped at random",
        "p = 0.024 against 40 searches for a wrong emotion",
    ]
    assert says["Cost"] == [
        "women in a shirt lose 1 point [-1, 3] of accuracy and 0.10 [0.00, 0.20] nats",
        "cosine of embeddings to the original: 0.66 semi-nude, 0.92 in a shirt",
    ]
    assert says["Calibration"] == [
        "a search on swapped labels gains 20 points at the median, 39 at most",
        "the SAE with no latent edited changes R by at most 2e-07 nats",
    ]


@pytest.mark.parametrize(("median", "gains"), [(-0.001, "gains 0 points"), (0.01, "gains 1 point at")])
def test_a_rounded_gain_has_no_sign_at_zero_and_one_point(median, gains):
    found = changed(null_searches={"labels_swapped": null(0.5, median, 0.1)})
    assert gains in summary.summary(found, SELECT, 0.25, 0.5)["Calibration"][0]


def test_the_summary_names_the_women_who_are_read_worse():
    says = summary.summary(FULL, SELECT | {"R_gap": -2.1}, 0.25, 0.5)
    assert says["How sure"][0].startswith("accuracy of women in a shirt rises")
    assert says["Cost"][0].startswith("semi-nude women lose")


def test_the_summary_claims_no_edit_and_no_face_that_is_not_there():
    unedited = summary.summary(FULL, SELECT | {"n_latents": 0}, 0.25, 0.5)
    assert list(unedited) == ["Finding"] and unedited["Finding"][-1].startswith("edit: none")
    assert not any("edited CLIP" in line for line in unedited["Finding"])
    blind = summary.summary(changed(guardrails=FULL["guardrails"] | {"readout_skill": 0.1}), SELECT, 0.25, 0.5)
    assert blind == {"Finding": ["this CLIP does not read faces (skill 0.10), so nothing is claimed"]}


def test_a_p_that_was_not_computed_is_left_out():
    edit = {**FULL["edit"], "accuracy": {key: FULL["edit"]["accuracy"][key] for key in ("gain", "cost")}}
    says = summary.summary(changed(edit=edit, null_searches={}), SELECT, 0.25, 0.5)
    assert len(says["How sure"]) == 2 and len(says["Calibration"]) == 1
    assert {"p_random_sets", "p_null"} & set(ablate.headline(changed(edit=edit, null_searches={}))) == set()


def test_the_run_in_git_is_summed_up_in_a_screen(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["summary"])
    summary.main()
    lines = capsys.readouterr().out.splitlines()
    original = json.loads((ROOT / "metrics/full/ablate.json").read_text())["accuracy"]["original"]
    assert f"{100 * original['semi_nude']['estimate']:.0f} %" in lines[1]
    assert len(lines) <= 15 and max(map(len, lines)) <= COLUMNS


def test_the_finding_in_the_metrics():
    assert ablate.headline(FULL) == {
        "accuracy_semi_nude": 0.3,
        "accuracy_edited": 0.7,
        "accuracy_clothed": 0.9,
        "accuracy_clothed_edited": 0.89,
        "R_gap": 2.0,
        "R_gap_edited": 0.5,
        "p_random_sets": 0.005,
        "p_null": 0.049,  # of swapped labels
    }


@pytest.mark.slow
def test_dvc_shows_the_finding_within_a_screen(tmp_path):
    for name in ("dvc.yaml", "params.yaml", ".dvc/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "metrics").mkdir()
    long_numbers = {name: value - 1.23456789e-3 for name, value in ablate.headline(FULL).items()}
    (tmp_path / "metrics" / "ablate.json").write_text(json.dumps(long_numbers))
    for command in (["git", "init", "--quiet"], ["dvc", "metrics", "show", "metrics/ablate.json"]):
        done = subprocess.run(command, cwd=tmp_path, env=ENV | GIT_ENV, capture_output=True, text=True, check=True)
    header, numbers = done.stdout.splitlines()
    assert set(header.split()) == {"Path", *long_numbers}
    assert numbers.startswith("metrics/ablate.json") and len(header) <= COLUMNS

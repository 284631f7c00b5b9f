"""The recorded sweep over planted worlds: its page tells what its runs say, and its runs are those of this pipeline."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from stages.core.run import params
from stages.core.run.labels import CLOTHED, SEMI_NUDE
from stages.studies import sweep, sweep_tables
from stages.studies.worlds import WORLDS
from tests.imports import ROOT

PAGE = sweep.RUNS_FPATH.with_name("README.md").read_text()
NO_GAP = "No emotion gap was found: clothed minus semi-nude accuracy is 1 point [-1, 3]. No latent was named."
GAP = "It names the emotion on 99 % of the images of women {}, but on 31 % of the images of the same women {}"


def test_the_page_has_the_tables_of_the_recorded_runs():
    runs = sweep.recorded()
    for of in (sweep_tables.table, sweep_tables.rates, sweep_tables.tracking_table):
        assert of(runs) in PAGE


@pytest.mark.parametrize("name", WORLDS)
def test_every_world_is_a_study_that_the_pipeline_accepts(name):
    values = sweep.settings(WORLDS[name], 7, ROOT / "params.yaml")
    assert {values["demo"]["seed"], values["world"]["seed"], values["train_sae"]["seed"]} == {7}
    assert (WORLDS[name].loses == "none") == (values["demo"]["bias"] == 0 or values["demo"]["biased"] == "both")


def test_a_stage_that_fails_is_named_with_world_and_seed(monkeypatch):
    bad = WORLDS["no_bias"].values | {"world.n_women": 4, "ingest.image_size": 63}  # patches of 8 pixels do not tile it
    monkeypatch.setitem(sweep.WORLDS, "no_bias", sweep.World("", "none", 1, bad))
    with pytest.raises(sweep.SweepError, match=r"no_bias, seed 3: prepare_clip failed: .*demo\.patch_size"):
        sweep.run("no_bias", 3)


@pytest.mark.studies
def test_what_a_run_found_is_read_from_its_metrics(studies):
    folder = studies["synthetic"]
    row = sweep.results(folder)
    full = json.loads((folder / "metrics/full/ablate.json").read_text())
    assert row["semi_nude"] == full["accuracy"]["original"][SEMI_NUDE]["estimate"]
    assert row["n_saes"] == len(list((folder / "data/sae").iterdir()))
    assert row["finding"] in (folder / "plots/report.html").read_text().replace("\n", " ")
    assert {"iou_gap_grad_eclip", "encode_colour", *sweep_tables.ENDPOINTS} <= set(row)
    assert (
        params.read(folder / "params.yaml")["demo"]["bias"] == 0.9
    )  # of a world with a bias, so something may be said


def test_runs_that_are_recorded_are_not_run_again_unless_their_seeds_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sweep, "RUNS_FPATH", tmp_path / "sweep.csv")
    assert sweep.wanted(["cue_5", "cue_30"], None)[:3] == [("cue_5", 101), ("cue_30", 101), ("cue_5", 102)]
    for seed, gap in ((101, 0.1), (101, 0.2), (102, 0.3)):
        sweep.record({"world": "cue_5", "seed": seed, "gap": gap})
    sweep.record({"world": "no_bias", "seed": 101, "gap": 0.0})
    assert sweep.recorded().to_numpy().tolist() == [["no_bias", 101, 0.0], ["cue_5", 101, 0.2], ["cue_5", 102, 0.3]]
    assert sweep.wanted(["cue_5"], None) == [("cue_5", 103)]
    assert sweep.wanted(["cue_5"], [101]) == [("cue_5", 101)]


def test_shares_have_exact_intervals():
    rate, low, high = sweep_tables.share(0, 5)
    assert (rate, low) == (0, 0)
    assert high == pytest.approx(1 - 0.025 ** (1 / 5))  # the rate at which five misses in a row have p = .025
    rate, low, high = sweep_tables.share(3, 3)
    assert (rate, high) == (1, 1) and low == pytest.approx(0.025 ** (1 / 3))


@pytest.mark.parametrize(
    ("loses", "right"),
    [("none", [True, False, False]), ("slight", [True, True, False]), (SEMI_NUDE, [False, True, False]),
     (CLOTHED, [False, False, True])],
)  # fmt: skip
def test_the_first_sentence_is_judged_by_the_condition_that_loses(loses, right):
    says = [NO_GAP, GAP.format("in a shirt", "semi-nude"), GAP.format("semi-nude", "in a shirt")]
    assert [sweep_tables.first_sentence_is_right(text, loses) for text in says] == right


def test_errors_are_counted():
    """A name without a bias; a wrong side; an edit that hurts, with a wrong first sentence; a run without error."""
    rows = [
        ("no_bias", "semi_nude", 1, 0, float("nan"), NO_GAP),
        ("cue_90", "clothed", 2, 0, float("nan"), GAP.format("in a shirt", "semi-nude")),
        ("cue_90", "semi_nude", 2, 3, -0.1, NO_GAP),
        ("clothed_cue_90", "clothed", 1, 5, 0.4, GAP.format("semi-nude", "in a shirt")),
    ]
    columns = ["world", "losing", "n_saes_named", "n_edited", "gain_high", "finding"]
    counted = sweep_tables.rates(pd.DataFrame(rows, columns=columns)).splitlines()[2:]
    assert [line.split(" | ")[1] for line in counted] == ["1 of 1", "1 of 3", "1 of 4", "1 of 4"]


def test_an_endpoint_that_follows_the_bias_is_told_from_one_that_does_not():
    worlds = ["no_bias", "no_bias", "cue_30", "cue_30", "cue_90", "cue_90"]
    runs = pd.DataFrame({"world": worlds})
    for name in sweep_tables.ENDPOINTS:
        runs[name] = sweep_tables.planted_bias(runs) if name == "R_gap" else [0.5, 0.1, 0.4, 0.2, 0.3, 0.3]
    found = sweep_tables.tracking(runs).set_index("endpoint")
    labels = sweep_tables.ENDPOINTS
    assert found.loc[labels["R_gap"], ["rho", "low", "high"]].tolist() == pytest.approx([1, 1, 1])
    other = found.loc[labels["lift_gap_grad_eclip"]]
    assert other["low"] < 0 < other["high"]

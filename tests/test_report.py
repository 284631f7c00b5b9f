"""The report refuses, by name, what no stage has written. `tests/report` tests its sentences."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages import report
from stages.core.run import outs

CHOSEN = {
    "layer": 2,
    "expansion": 4,
    "list": "bias",
    "latents": [3, 5],
    "losing": "semi_nude",
    "gap": {"estimate": 0.5, "low": 0.3, "high": 0.7},
    "skill": 0.9,
    "why": "it gains most",
}
CARDS = pd.DataFrame(
    {"latent": [3, 5, 9], "monosemanticity": 0.5, "encodes": ["emotion", "none", "emotion"], "emotion": 0.2}
)
EDITED = CARDS[["latent"]].head(2)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    for folder in (report.PLOTS_DPATH, report.SELECTION_DPATH):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def png(fpath: Path) -> bytes:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(fpath)
    return fpath.read_bytes()


def test_a_picture_is_embedded_to_the_byte(tmp_path):
    content = png(tmp_path / "a.png")
    assert base64.b64decode(report.embedded(Path("a.png"), "ablate").removeprefix("data:image/png;base64,")) == content


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda fpath: fpath.write_bytes(b""),
        lambda fpath: fpath.write_bytes(fpath.read_bytes()[:400]),
        lambda fpath: fpath.write_bytes(fpath.read_bytes()[:60].ljust(4000, b"\0")),
        lambda fpath: fpath.write_text("<svg/>"),
        lambda fpath: Image.open(fpath).copy().save(fpath, "JPEG"),
        lambda fpath: (fpath.unlink(), fpath.mkdir()),
    ],
    ids=["missing", "empty", "cut short", "overwritten", "SVG", "JPEG", "folder"],
)
def test_a_damaged_picture_is_named_with_its_stage(tmp_path, damage):
    png(tmp_path / "a.png")
    damage(tmp_path / "a.png")
    with pytest.raises(outs.UnreadableError, match=r"a\.png is missing or damaged .*rerun `dvc repro --force heatmap`"):
        report.embedded(Path("a.png"), "heatmap")


@pytest.mark.parametrize("change", [{"list": "other"}, {"latents": 2}, {"latents": "3 5"}, {"latents": {}}])
def test_a_selection_of_another_form_is_refused(change):
    fpath = report.SELECTION_DPATH / "selection.json"
    fpath.write_text(json.dumps(CHOSEN))
    assert report.read_chosen() == CHOSEN
    fpath.write_text(json.dumps(CHOSEN | change))
    with pytest.raises(outs.UnreadableError, match=r"selection\.json is missing or damaged"):
        report.read_chosen()


@pytest.mark.parametrize(
    ("cards", "says"),
    [
        (CARDS.drop(columns="emotion"), "no column of numbers called 'emotion', which encodes names"),
        (CARDS.assign(emotion="much"), "no column of numbers called 'emotion', which encodes names"),
        (CARDS.drop(columns="encodes"), "no column encodes"),
        (CARDS.tail(2), "the latents are not those that are edited"),
        (CARDS.iloc[[0, 0, 1]], "the latents are not those that are edited"),
        (CARDS.assign(monosemanticity="much"), "column monosemanticity holds text"),
    ],
)
def test_cards_of_other_latents_are_refused(cards, says):
    fpath = report.PLOTS_DPATH / "describe_latents.csv"
    CARDS.to_csv(fpath, index=False)
    assert report.read_cards(EDITED).equals(CARDS)
    cards.to_csv(fpath, index=False)
    with pytest.raises(outs.UnreadableError, match=rf"describe_latents\.csv is missing or damaged \({says}\)"):
        report.read_cards(EDITED)


def test_edits_were_tried_in_saes_that_were_searched_and_had_a_latent_to_edit():
    saes = pd.DataFrame({"searched": [1, 1, 0], "n_bias": [0, 2, 5], "n_perception": [1, 0, 9]})
    assert [report.n_tried(saes, kind) for kind in ("ranked", "bias", "perception")] == [2, 1, 1]

"""The stage `ingest`: where names end, what it says before a long drawing, and what --check says of a folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from stages import ingest
from stages.core.data import dataset
from stages.core.planted import world
from stages.core.schema import World
from tests.imports import ROOT
from tests.ingestion import folders
from tests.soak.inputs import folder
from tests.soak.inputs.kinds import run


def test_names_of_the_folder_are_only_in_the_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder.make()
    run(ingest)
    table = dataset.load(Path("data/dataset")).table
    assert table["image"].tolist() == [
        *("pair0000_semi_nude", "pair0000_clothed", "pair0001_semi_nude", "pair0001_clothed", "corpus00000")
    ]
    assert table["identity"].tolist() == ["woman000"] * 2 + ["woman001"] * 2 + [""]
    key = pd.read_csv("data/dataset/names.csv", dtype=str, keep_default_na=False)
    given = pd.read_csv("raw/manifest.csv", dtype=str, keep_default_na=False)
    assert (key[["image", "identity"]] == table[["image", "identity"]]).all(axis=None)
    assert key["file"].tolist() == given["image"].tolist() and key["woman"].tolist() == given["identity"].tolist()
    texts = {path for path in Path().rglob("*") if path.suffix in (".csv", ".json") and "raw" not in path.parts}
    named = {path.as_posix() for path in texts if re.search("anna|bea|other", path.read_text())}
    assert named == {"data/dataset/names.csv"} and len(texts) > 4


def test_women_are_numbered_as_they_appear_and_pairs_by_their_number():
    """Two women, the second first by name; the manifest mixes their rows with a corpus image."""
    table = pd.DataFrame(
        [
            ("z/1.jpg", "zoe", "clothed", 1),
            ("c.jpg", "", "", -1),
            ("a/1.jpg", "anna", "clothed", 0),
            ("z/2.jpg", "zoe", "semi_nude", 1),
            ("a/2.jpg", "anna", "semi_nude", 0),
        ],
        columns=["image", "identity", "condition", "pair"],
    )
    renamed, key = ingest.numbered(table)
    assert renamed["identity"].tolist() == ["woman000", "", "woman001", "woman000", "woman001"]
    assert renamed["image"].tolist() == [
        *("pair0001_clothed", "corpus00000", "pair0000_clothed", "pair0001_semi_nude", "pair0000_semi_nude")
    ]
    assert key["woman"].tolist() == table["identity"].tolist() and key["file"].tolist() == table["image"].tolist()
    assert renamed[["condition", "pair"]].equals(table[["condition", "pair"]])


def test_a_long_drawing_is_announced_with_the_images_that_are_drawn(monkeypatch, capsys):
    config = World(n_women=5, intensities=[1.0], ambiguity=0.0, retaken=False, n_corpus=7, seed=0)
    expressions = world.expressions(["happy", "sad"], config.intensities, config.ambiguity)
    ingest.announce(config, expressions, 64)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(ingest, "LONG", 10)
    ingest.announce(config, expressions, 64)
    table, draw = ingest.from_world(config, expressions, 64)
    picture = draw(0)
    megabytes = len(table) * (picture.pixels.nbytes + picture.masks.nbytes) / 1e6
    said = capsys.readouterr().out
    assert said == f"{len(table)} portraits of 64x64 pixels will be drawn: {megabytes:.0f} MB before compression\n"


@pytest.fixture
def checked(tmp_path, monkeypatch):
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    given["ingest"] |= {"source": "folder", "folder": "raw", "emotions": ["happy", "sad", "calm"]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given))
    (tmp_path / "raw").mkdir()
    folders.write(tmp_path / "raw")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ingest", "--check"])
    return tmp_path


def test_check_prints_warnings_and_writes_no_dataset(checked, capsys):
    ingest.main()
    said = capsys.readouterr()
    assert said.out == "raw: 8 rows are in order; masks drawn in plots/ingest.png\n"
    assert said.err.startswith("warning: raw/manifest.csv: no image has the emotion 'calm'")
    assert not (checked / "data").exists() and (checked / "plots" / "ingest.png").is_file()

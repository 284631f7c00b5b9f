"""Names of files and women end at `ingest`."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from stages import ingest
from stages.core.data import dataset
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

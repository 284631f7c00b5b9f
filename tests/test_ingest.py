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
from stages.core.run import params
from stages.core.schema import Ingest, World
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
    expressions = world.Expressions.from_params(["happy", "sad"], config.intensities, config.ambiguity)
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


@pytest.mark.parametrize("spoil", [folders.mask("face", inside=0), None], ids=["an empty mask", "no mask file"])
def test_check_draws_the_masks_also_if_there_are_faults_and_faulty_rows_first(checked, monkeypatch, capsys, spoil):
    """Row 3, the second of the manifest, has no face mask that can be used."""
    fpath = checked / "raw" / "anna_sad_clothed_face.png"
    fpath.unlink()
    if spoil:
        spoil.save(fpath)
    drawn = {}
    monkeypatch.setattr(ingest.contact_sheet, "draw", lambda *given: drawn.update(zip("tlpf", given, strict=True)))
    with pytest.raises(ingest.manifest.ManifestError, match="row 3: face_mask"):
        ingest.main()
    assert drawn["f"] == [1] and "rows with faults first" in capsys.readouterr().out
    pixels, masks = drawn["l"](1)
    assert pixels.shape == (64, 64, 3) and masks["bust"].max() == 255
    assert "face" not in masks if spoil is None else masks["face"].max() == 0
    (checked / "raw" / "anna_sad_clothed.png").write_text("no picture")
    assert drawn["l"](1) == (None, {})


def test_check_of_a_file_that_is_no_table_draws_nothing(checked):
    (checked / "raw" / "manifest.csv").write_text("image;identity\n")
    with pytest.raises(ingest.manifest.ManifestError):
        ingest.main()
    assert not (checked / "plots").exists()


def test_files_outside_the_folder_are_not_drawn(checked):
    folders.photograph(1).save(checked / "secret.png")
    table = pd.read_csv(checked / "raw" / "manifest.csv", dtype=str, keep_default_na=False)
    table.loc[0, "image"] = "../secret.png"
    folder = ingest.manifest.Folder(checked / "raw")
    assert ingest.manifest.glance(folder, table.iloc[0], folders.LIMITS) == (None, {})
    assert ingest.manifest.glance(folder, table.iloc[1], folders.LIMITS)[0].size == folders.SIZE


def test_corpus_images_keep_no_labels(checked):
    config = params.load(Ingest)
    table = pd.read_csv("raw/manifest.csv", dtype=str, keep_default_na=False)
    table.loc[len(table)] = {"image": "other.png", "emotion": "sad", "prompt": "a sad woman"} | dict.fromkeys(
        ["identity", "condition", "intensity", "bust_mask", "face_mask"], ""
    )
    completed = ingest.complete(table, config)
    assert (completed.loc[8, ["emotion", "prompt", "split"]] == ["", "", "corpus"]).all()
    assert (completed.loc[:7, "emotion"] == table.loc[:7, "emotion"]).all()


def test_the_readout_has_the_prompts_of_the_images(checked):
    """`sad` has a prompt in the manifest, `happy` two, `calm` no image: it has the filled template."""
    config = params.load(Ingest)
    table = pd.read_csv("raw/manifest.csv", dtype=str, keep_default_na=False)
    table["prompt"] = ["she is sad"] * 4 + ["she smiles", "she smiles", "she laughs", "she laughs"]
    assert ingest.prompts_of_emotions(ingest.complete(table, config), config) == {
        "happy": ["she laughs", "she smiles"],
        "sad": ["she is sad"],
        "calm": ["a calm woman"],
    }


def scaffold(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["ingest", "--scaffold", "{identity}_{emotion}_{condition}.png", *options])
    ingest.main()


def test_a_scaffold_names_unknown_labels_with_rows_and_files_left_out_only_if_there_are_any(
    checked, monkeypatch, capsys
):
    for path in (checked / "raw").iterdir():
        path.unlink()
    for name in ("anna_joy_nude", "anna_joy_clothed", "bea_happy_nude", "bea_happy_clothed"):
        folders.photograph(0).save(checked / "raw" / f"{name}.png")
    scaffold(monkeypatch)
    said = capsys.readouterr()
    assert said.out.startswith("raw/manifest.csv: 4 rows written\n")
    assert [line.removeprefix("warning: raw/manifest.csv, ") for line in said.err.splitlines()] == [
        "row 2: unknown emotion 'joy'; ingest.emotions in params.yaml lists happy, sad, calm",
        "row 3: unknown emotion 'joy'; ingest.emotions in params.yaml lists happy, sad, calm",
        "row 3: unknown condition 'nude'; use semi_nude or clothed",
        "row 5: unknown condition 'nude'; use semi_nude or clothed",
        "warning: Move the manifest away and repeat the command with `--alias FOUND=MEANT` for each",
    ]
    with pytest.raises(ingest.manifest.ManifestError, match=r"^raw/manifest.csv is there already: check it .* or move"):
        scaffold(monkeypatch)
    (checked / "raw" / "manifest.csv").unlink()
    folders.photograph(0).save(checked / "raw" / "notes.png")
    scaffold(monkeypatch, "--alias", "nude=semi_nude", "--alias", "joy=happy")
    said = capsys.readouterr()
    assert said.out.startswith(
        "raw/manifest.csv: 4 rows written; 1 image(s) do not match the pattern and were left out: 'notes.png'\n"
    )
    assert said.err == ""

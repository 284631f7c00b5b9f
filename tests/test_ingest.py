"""The stage `ingest`: what it says before a long drawing, and what --check says of a folder."""

from __future__ import annotations

import sys

import pytest
import yaml

from stages import ingest
from stages.core.schema import World
from tests.imports import ROOT
from tests.ingestion import folders


def test_a_long_drawing_is_announced_with_the_images_that_are_drawn(monkeypatch, capsys):
    config = World(n_women=5, n_corpus=7, seed=0)
    ingest.announce(config, 64)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(ingest, "LONG", 10)
    ingest.announce(config, 64)
    table, draw = ingest.from_world(config, 64)
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

"""Where the map of one image is drawn. `test_pipeline.py` draws maps."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.studies import map_image


def test_by_default_in_the_working_directory_and_never_beside_the_image():
    assert map_image.drawing_path(Path("data/raw/anna.jpg"), None) == Path("anna_map.png")
    assert map_image.drawing_path(Path("anna.jpg"), Path("plots/a.PNG")) == Path("plots/a.PNG")


@pytest.mark.parametrize("out", ["data/raw/a.png", "data/a.png", "plots/../data/a.png", "link/a.png"])
def test_never_among_the_data(tmp_path, monkeypatch, out):
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data/raw")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(map_image.ImageError, match=rf"--out {out}: data belongs to the stages"):
        map_image.drawing_path(Path("anna.jpg"), Path(out))


def test_a_working_directory_among_the_data_is_no_place_either(tmp_path, monkeypatch):
    monkeypatch.setattr(map_image, "DATA_DPATH", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(map_image.ImageError, match="belongs to the stages"):
        map_image.drawing_path(Path("anna.jpg"), None)


@pytest.mark.parametrize("out", ["photographs/a.png", "link/new/a.png", None])
def test_never_among_the_images_that_ingest_reads(tmp_path, monkeypatch, out):
    """They may lie outside data/: there, the default name is one of the folder too if the user works in it."""
    (tmp_path / "photographs").mkdir()
    (tmp_path / "link").symlink_to("photographs")
    monkeypatch.chdir(tmp_path if out else tmp_path / "photographs")
    folder = str(tmp_path / "photographs")
    with pytest.raises(map_image.ImageError, match=rf"{folder} \(ingest.folder\) holds the images"):
        map_image.drawing_path(Path("anna.jpg"), Path(out) if out else None, folder)
    monkeypatch.chdir(tmp_path)
    assert map_image.drawing_path(Path("anna.jpg"), Path("a.png"), folder) == Path("a.png")


def test_the_image_is_not_drawn_over():
    with pytest.raises(map_image.ImageError, match=r"--out a\.png: that is the image"):
        map_image.drawing_path(Path("a.png"), Path("./a.png"))


def test_the_map_is_a_png_file():
    with pytest.raises(map_image.ImageError, match=r"--out a\.jpg: the map is a PNG file"):
        map_image.drawing_path(Path("anna.jpg"), Path("a.jpg"))

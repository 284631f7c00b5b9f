"""The scans of a JPEG file are counted without decoding, and a file of thousands is refused at once."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from stages.core.ingestion import image_files, jpeg
from tests.soak.inputs.folder import many_scans


def saved(**options):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(held := io.BytesIO(), "JPEG", **options)
    return held.getvalue()


def test_scans_are_counted():
    assert jpeg.n_scans(saved()) == 1
    assert jpeg.n_scans(saved(progressive=True)) == 10  # the scan script of jpeg_simple_progression for colour
    assert jpeg.n_scans(many_scans(saved(progressive=True), 57)) == 67
    assert jpeg.n_scans(b"") == 0


def test_scans_of_a_thumbnail_or_a_second_picture_do_not_count():
    inner = saved(progressive=True)
    segment = b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner
    assert jpeg.n_scans(b"\xff\xd8" + segment + saved()[2:] + inner) == 1


def test_a_scan_cannot_hide_behind_a_marker_without_segment():
    data = many_scans(saved(progressive=True), 3)
    assert jpeg.n_scans(data[:-2] + b"\xff\x01\xff\xff" + data[data.rindex(b"\xff\xda") :]) == 14


@pytest.mark.parametrize("as_mask", [False, True])
def test_thousands_of_scans_are_refused_before_they_are_decoded(tmp_path, as_mask):
    Image.new("L", (2000, 2000), 100).save(held := io.BytesIO(), "JPEG", progressive=True)
    (tmp_path / "a.jpg").write_bytes(many_scans(held.getvalue(), 3000))
    start = time.perf_counter()
    with pytest.raises(ValueError, match="has 3006 scans, each of which is a pass over all pixels; save it again"):
        (image_files.open_mask if as_mask else image_files.open_image)(tmp_path / "a.jpg", 50e6)
    assert time.perf_counter() - start < 5


def test_a_usual_progressive_picture_is_opened(tmp_path):
    (tmp_path / "a.jpg").write_bytes(saved(progressive=True))
    assert image_files.open_image(tmp_path / "a.jpg", 50e6).size == (48, 64)

"""Files that may be uploaded, and those that are refused in a sentence."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.core.explorer import pictures
from stages.core.explorer.requests import RequestError


def file(image: Image.Image, kind: str, **options) -> bytes:
    written = BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


@pytest.fixture
def noise(rng) -> Image.Image:
    return Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))


def test_a_picture_is_cropped_to_its_centre(noise):
    read = pictures.from_file(file(noise, "PNG"), 40, 1e6)
    assert (read == np.asarray(noise)[:, 10:50]).all()
    assert pictures.from_file(file(noise, "JPEG"), 32, 1e6).shape == (32, 32, 3)


def test_files_that_are_refused(noise):
    transparent = noise.convert("RGBA")
    transparent.putpixel((0, 0), (0, 0, 0, 0))
    refused = {
        "neither a PNG nor a JPEG": file(noise, "GIF"),
        "neither a PNG": b"<svg/>",
        "damaged or cut short": file(noise, "PNG")[:-900],
        "transparent pixels": file(transparent, "PNG"),
        "one colour throughout": file(Image.new("RGB", (9, 9)), "PNG"),
        "a strip": file(Image.new("RGB", (900, 9)), "PNG"),
        "holds 2 pictures": file(noise, "PNG", save_all=True, append_images=[noise.rotate(90)]),
        "more than 50 megapixels": file(Image.new("1", (8000, 8000)), "PNG"),
        "more than 20 MiB": b"\x89PNG\r\n\x1a\n" + bytes(pictures.MAX_BYTES),
    }
    for says, content in refused.items():
        with pytest.raises(RequestError, match=says):
            pictures.from_file(content, 32, 5e7)


def test_nothing_of_an_upload_is_left_on_the_disk(noise, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pictures.from_file(file(noise, "PNG"), 32, 1e6)
    assert list(Path(tmp_path).iterdir()) == []

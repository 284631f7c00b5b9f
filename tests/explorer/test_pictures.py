"""Files that may be uploaded, and those that are refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stages.core.explorer import pictures
from stages.core.explorer.requests import RequestError
from tests.explorer import files


@pytest.fixture
def noise(rng) -> Image.Image:
    return Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))


def test_a_picture_is_cropped_to_its_centre(noise):
    read = pictures.from_file(files.content(noise), 40, 1e6)
    assert (read == np.asarray(noise)[:, 10:50]).all()
    assert pictures.from_file(files.content(noise, "JPEG"), 32, 1e6).shape == (32, 32, 3)


def test_files_that_are_refused(noise):
    transparent = noise.convert("RGBA")
    transparent.putpixel((0, 0), (0, 0, 0, 0))
    refused = {
        "neither a PNG nor a JPEG": files.content(noise, "GIF"),
        "neither a PNG": b"<svg/>",
        "damaged or cut short": files.content(noise)[:-900],
        "transparent pixels": files.content(transparent),
        "one colour throughout": files.content(Image.new("RGB", (9, 9))),
        "a strip": files.content(Image.new("RGB", (900, 9))),
        "holds 2 pictures": files.content(noise, save_all=True, append_images=[noise.rotate(90)]),
        "more than 50 megapixels": files.content(Image.new("1", (8000, 8000))),
        "more than 20 MiB": b"\x89PNG\r\n\x1a\n" + bytes(pictures.MAX_BYTES),
    }
    for says, content in refused.items():
        with pytest.raises(RequestError, match=says):
            pictures.from_file(content, 32, 5e7)


def test_an_upload_needs_no_file_on_the_disk(noise, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("tempfile.tempdir", "/absent")
        patched.setattr("builtins.open", lambda *_, **__: pytest.fail("a file was opened"))
        read = pictures.from_file(files.content(noise, "JPEG", progressive=True), 40, 1e6)
    assert read.shape == (40, 40, 3)

"""Pictures as the content of files, for uploads."""

from __future__ import annotations

from io import BytesIO

from PIL import Image


def content(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    """The bytes of a file that holds an image. options: those of Pillow's `save`."""
    written = BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()

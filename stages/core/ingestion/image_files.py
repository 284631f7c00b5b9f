"""Files of images and masks: open them as CLIP's preprocessing needs them, and crop them to what CLIP sees.

A file that cannot be used gives a ValueError. Its message says what is wrong and what to do, and names no file.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from stages.core.ingestion import contents, jpeg

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")  # not all that Pillow reads: it runs EPS files as programs
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
MAX_ASPECT = 20  # longer side / shorter side; the crop keeps a twentieth, and the resized strip is 20 times as long


def open_image(file: Path | BytesIO, max_pixels: float) -> Image.Image:
    """Open an image file upright (by its EXIF orientation), as RGB.

    file: the path of the file, or its content in memory.
    max_pixels: largest number of pixels that the file may have.
    Raises ValueError if the file is unreadable, too large or a narrow strip. Raises ValueError too if the file holds
    several pictures or transparent pixels, or if its pixel format is not supported. The message says what is wrong and
    what to do, but does not name the file.
    """
    image = _upright(file, max_pixels)
    if contents.is_transparent(image):
        raise ValueError("has transparent pixels, which would turn black or worse; save it on a plain background")
    return image.convert("RGB")


def open_mask(path: Path, max_pixels: float) -> Image.Image:
    """Open a mask file upright, as an 8-bit grey image: 255 (white) inside the region, 0 (black) outside.

    Transparent parts are laid on black. A pixel is then white if its brightness is at least half.
    max_pixels: largest number of pixels that the file may have.
    Raises ValueError if the file is unreadable, too large, a narrow strip, holds several pictures, or has a pixel
    format that is not supported.
    """
    return black_and_white(open_grey(path, max_pixels))


def open_grey(path: Path, max_pixels: float) -> Image.Image:
    """Open a mask file as `open_mask` does, with all its shades of grey."""
    mask = _upright(path, max_pixels)
    if mask.has_transparency_data:
        mask = Image.alpha_composite(Image.new("RGBA", mask.size, "black"), mask.convert("RGBA"))
    return mask.convert("L")


def black_and_white(grey: Image.Image) -> Image.Image:
    """Turn each pixel of a grey image white (255) if its brightness is at least half, else black (0)."""
    return grey.point(lambda value: 255 if value >= 128 else 0)


def _upright(file: Path | BytesIO, max_pixels: float) -> Image.Image:
    with _opened(file) as image:
        _check_size(image, max_pixels)
        _check_scans(image, file)
        try:
            n_pictures = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a photograph and previews
            image.load()
            upright = ImageOps.exif_transpose(image)
        except Exception:  # Pillow's decoders raise many kinds
            raise ValueError("is damaged or cut short; save it again as PNG or JPEG") from None
    if n_pictures > 1:
        raise ValueError(f"holds {n_pictures} pictures; save the one that is meant as PNG or JPEG")
    return _eight_bits(upright)


def _opened(file: Path | BytesIO) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except Exception:  # as above
        raise ValueError("cannot be read; save it again as PNG or JPEG") from None


def _check_size(image: Image.Image, max_pixels: float) -> None:
    if image.width * image.height > max_pixels:
        raise ValueError(
            f"has more than {max_pixels / 1e6:g} megapixels; scale it down, or raise ingest.max_megapixels"
        )
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise ValueError(f"is {image.width}x{image.height} pixels, a strip; crop it towards a square")


def _check_scans(image: Image.Image, file: Path | BytesIO) -> None:
    if image.format not in ("JPEG", "MPO"):
        return
    if (n := jpeg.n_scans(file.getvalue() if isinstance(file, BytesIO) else file.read_bytes())) > jpeg.MAX_SCANS:
        raise ValueError(f"has {n} scans, each of which is a pass over all pixels; save it again as JPEG or PNG")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Keep the upper eight of sixteen bits. Pillow's own conversion makes all values above 255 white."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode not in MODES:
        raise ValueError(f"has pixels of Pillow's mode {image.mode}; save it again as 8-bit PNG or JPEG")
    return image


def square(image: Image.Image, size: int, resample: Image.Resampling) -> UInt8[np.ndarray, "size size *rgb"]:
    """Resize the shorter side to `size` pixels, then crop the centre square, as CLIP's own preprocessing does.

    resample: Pillow's filter for the resizing.
    Returns uint8 pixels, of shape [size, size, 3] for an RGB image and [size, size] for a mask.
    """
    scale = size / min(image.size)
    resized = image.resize((max(size, round(image.width * scale)), max(size, round(image.height * scale))), resample)
    left, top = (resized.width - size) // 2, (resized.height - size) // 2
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def share_lost(mask: Image.Image) -> float:
    """Compute the share of a region's area, 0 to 1, that CLIP does not see. CLIP sees the centre square of an image.

    mask: grey image of the size of the whole image, white inside the region. At least one pixel must be white.
    """
    side = min(mask.size)
    left, top = (mask.width - side) // 2, (mask.height - side) // 2
    inside = np.asarray(mask)[top : top + side, left : left + side].sum(dtype=np.float64)
    return 1.0 - inside / np.asarray(mask).sum(dtype=np.float64)

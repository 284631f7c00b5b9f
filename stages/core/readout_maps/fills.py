"""What hidden pixels become, and where maps that start from a baseline start."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import UInt8
from scipy.ndimage import gaussian_filter

from stages.core.run.labels import GREY

Fill = Literal["grey", "blurred"]


def filled(images: UInt8[np.ndarray, "n s s 3"], fill: Fill, spread: float = 0.125) -> UInt8[np.ndarray, "n s s 3"]:
    """Return images of which nothing can be recognised, to take hidden pixels from.

    images: square RGB images.
    fill: `grey` gives the grey that all stages hide regions with. `blurred` gives each image after a Gaussian blur, so
        that its colours stay where they are, and its shapes go.
    spread: standard deviation of the blur, as a share of the side of the image.
    """
    if fill == "grey":
        return np.full_like(images, GREY)
    deviation = spread * images.shape[1]
    blurred = gaussian_filter(images.astype(np.float32), (0, deviation, deviation, 0), mode="nearest")
    return blurred.round().astype(np.uint8)

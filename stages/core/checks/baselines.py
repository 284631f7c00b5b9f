"""Maps that do not depend on the model: what a map must beat."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

NAMES = ("centre_gaussian", "random")
GAUSSIAN_SPREAD = 0.25  # standard deviation, as a share of the side: a photographer's guess of where the subject is


def maps(shape: tuple[int, int, int], seed: int) -> dict[str, Float[np.ndarray, "n gh gw"]]:
    """Draw the baseline maps of n images, by name (NAMES).

    centre_gaussian is the same for all images: exp(-(x^2 + y^2) / 2s^2), with x and y from the middle of the image as
    shares of its sides, and s = 0.25 (GAUSSIAN_SPREAD). random has values from 0 to 1, drawn evenly.

    shape: number of images, and of patches down (gh) and across (gw). seed: seed of the random values.
    """
    y, x = ((np.arange(side) + 0.5) / side - 0.5 for side in shape[1:])
    gaussian = np.exp(-(y[:, None] ** 2 + x**2) / (2 * GAUSSIAN_SPREAD**2))
    drawn = np.broadcast_to(gaussian, shape), np.random.default_rng(seed).random(shape)
    return dict(zip(NAMES, drawn, strict=True))

"""Embedding association of images with the text of their emotion (Caliskan et al. 2017; Wolfe et al. 2023).

    s(image) = cos(image, prompt of its emotion) - mean over the other emotions' prompts of cos(image, prompt)
    d        = (mean s of clothed images - mean s of semi-nude ones) / standard deviation of s over both

d is a standardised difference (.8 is called large). It measures the distance between the two groups in units of a
spread. An edit may change this spread as well, so d stands beside the readout and does not replace it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def association(
    embeddings: Float[np.ndarray, "n embed"], prompts: Float[np.ndarray, "emotion embed"], truth: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Compute the association s of each image with the prompt of its own emotion.

    s = cos(image, prompt of its emotion) - mean over the other emotions' prompts of cos(image, prompt)

    embeddings, prompts: unit-norm embeddings of the images, and of one prompt per emotion.
    truth: true emotion of each image, as the row number of its prompt in `prompts`.
    Returns s, one value per image.
    """
    cosines = embeddings @ prompts.T
    own = cosines[np.arange(len(truth)), truth]
    others = (cosines.sum(1) - own) / (cosines.shape[1] - 1)
    return own - others


def effect_size(semi_nude: Float[np.ndarray, " n"], clothed: Float[np.ndarray, " m"]) -> float:
    """Compute the effect size d: (mean s of clothed images - mean s of semi-nude images) / standard deviation of s.

    s is the association of an image with the prompt of its own emotion (`association`).

    semi_nude, clothed: s of each image of that condition. The standard deviation is over all these images together.
    Returns d. It is above 0 if s is larger on clothed images. It is 0 if s is the same for all images.
    """
    spread = np.concatenate([semi_nude, clothed]).std(ddof=1)
    return float((clothed.mean() - semi_nude.mean()) / spread) if spread > 0 else 0.0

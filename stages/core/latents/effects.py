"""The effect of each latent on the emotion readout, to first order.

    effect = sum over tokens of f * dR/df        nats; dR/df = dR/dx . (decoder row of the latent)

f is the activation of the latent, x the residual stream that the SAE reads, and R the log-probability of the true
emotion (`clip/readout.py`). The effect is what R would lose if the latent were zeroed with the reconstruction error
kept. The field calls it attribution patching (Nanda 2023; on SAE latents Marks et al. 2024, arXiv 2403.19647), here
with zero as the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stages.core.sae import JumpReLUSAE

Batches = Iterator[tuple[np.ndarray, Float[Tensor, "n token d_in"]]]
"""For each batch of images, their row numbers in the data set's table, and their tokens in the residual stream."""
Gradient = Callable[[np.ndarray, Tensor], Float[Tensor, "n token d_in"]]
"""A function from the row numbers and tokens of some images to dR/dx at these tokens, nats per unit of activation."""


def attribution_patching_effect(
    sae: JumpReLUSAE, f: Float[Tensor, "n token latent"], gradient: Float[Tensor, "n token d_in"]
) -> Float[Tensor, "n latent"]:
    """Compute the first-order effect of each latent on R (log-probability of the true emotion), in nats.

    effect = sum over the tokens of an image of f * dR/df

    f: activations of all latents.
    gradient: dR/dx, with x the residual stream that the SAE reads, in nats per unit of activation.
    Returns one effect per image and latent.
    """
    return (gradient @ sae.W_dec.T).mul_(f).sum(1)


@torch.no_grad()
def effects(sae: JumpReLUSAE, batches: Batches, gradient: Gradient) -> Float[np.ndarray, "n latent"]:
    """Compute the first-order effect of each latent on R (log-probability of the true emotion, nats), image by image.

    The SAE encodes the images batch by batch. An effect is f * dR/df, with f the latent's activation, summed over the
    tokens of the image.

    batches: yields the row numbers of the images of a batch in the data set's table, and the tokens x of these images.
    gradient: a function that gives dR/dx from the row numbers and tokens of a batch.
    Returns one row per image, in the order of `batches`.
    """
    parts = [
        attribution_patching_effect(sae, sae.encode(tokens), gradient(rows, tokens)).cpu().numpy()
        for rows, tokens in batches
    ]
    return np.concatenate(parts)

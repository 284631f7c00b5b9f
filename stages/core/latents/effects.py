"""The effect of each latent on the emotion readout, to first order.

    effect = sum over tokens of f * dR/df        nats; dR/df = dR/dx . (decoder row of the latent)

This is what R would lose if the latent were zeroed with the reconstruction error kept. The field calls it attribution
patching (Nanda 2023; on SAE latents Marks et al. 2024, arXiv 2403.19647), here with zero as the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stages.core.sae import JumpReLUSAE

Batches = Iterator[tuple[np.ndarray, Float[Tensor, "n token d_in"]]]
"""Rows and tokens of some images, batch by batch."""
Gradient = Callable[[np.ndarray, Tensor], Float[Tensor, "n token d_in"]]
"""From rows and tokens to dR/dx."""


def attribution_patching_effect(
    sae: JumpReLUSAE, f: Float[Tensor, "n token latent"], gradient: Float[Tensor, "n token d_in"]
) -> Float[Tensor, "n latent"]:
    """Effect of each latent on each image, nats, from its activations f and the gradient dR/dx."""
    return (gradient @ sae.W_dec.T).mul_(f).sum(1)


@torch.no_grad()
def effects(sae: JumpReLUSAE, batches: Batches, gradient: Gradient) -> Float[np.ndarray, "n latent"]:
    """Effects of all latents on the images of `batches`, nats."""
    parts = [
        attribution_patching_effect(sae, sae.encode(tokens), gradient(rows, tokens)).cpu().numpy()
        for rows, tokens in batches
    ]
    return np.concatenate(parts)

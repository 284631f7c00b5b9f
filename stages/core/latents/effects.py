"""The effect of each latent on the emotion readout, to first order.

    effect = sum over tokens of f * dR/df        nats; dR/df = dR/dx . (decoder row of the latent)

f is the activation of the latent, x the residual stream that the SAE reads, and R the log-probability of the true
emotion (`clip/readout.py`). The effect is what R would lose if the latent were zeroed with the reconstruction error
kept. The field calls it attribution patching (Nanda 2023; on SAE latents Marks et al. 2024, arXiv 2403.19647), here
with zero as the baseline.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def attribution_patching_effect(
    decoder: Float[Tensor, "latent d_in"], f: Float[Tensor, "n token latent"], gradient: Float[Tensor, "n token d_in"]
) -> Float[Tensor, "n latent"]:
    """Compute the first-order effect of each latent on R (log-probability of the true emotion), in nats.

    effect = sum over the tokens of an image of f * dR/df

    decoder: decoder rows of the latents.
    f: activations of these latents.
    gradient: dR/dx, with x the residual stream that the SAE reads, in nats per unit of activation.
    Returns one effect per image and latent.
    """
    return effect_by_token(decoder, f, gradient).sum(1)


def effect_by_token(
    decoder: Float[Tensor, "latent d_in"], f: Float[Tensor, "n token latent"], gradient: Float[Tensor, "n token d_in"]
) -> Float[Tensor, "n token latent"]:
    """Compute f * dR/df, the part of each token in a latent's first-order effect on R, in nats.

    decoder, f, gradient: as for `attribution_patching_effect`.
    """
    return (gradient @ decoder.T).mul_(f)

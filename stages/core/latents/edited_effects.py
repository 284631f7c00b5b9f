"""The first-order effects of latents on the emotion readout while other latents are edited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stages.core.latents.edited_images import TRUE_LABELS, EditedImages, SearchLabels
from stages.core.latents.effects import attribution_patching_effect
from stages.core.latents.pooling import PooledLatents

MIN_WOMEN = 2  # a latent that fires on fewer women cannot be shown to differ, nor be trusted on others

Effects = Callable[[list[int]], dict[str, Float[np.ndarray, "pair latent"]]]
"""A function from the indices of the edited latents to the effects of the candidates on R, nats, by condition."""


def candidate_latents(pooled: PooledLatents, images: Int[np.ndarray, " n"], women: np.ndarray) -> Int[np.ndarray, " c"]:
    """Return the indices of the latents that can be found: those that fire on images of at least two women.

    pooled: activations of all latents, pooled over the tokens of each image.
    images: positions in `pooled` of the images to look at. women: the woman of each of them.
    """
    fires = np.maximum(pooled.cls[images], pooled.max[images]) > 0
    _, woman = np.unique(women, return_inverse=True)
    n_women = sum((fires[woman == w].any(0).astype(int) for w in range(woman.max() + 1)), np.zeros(fires.shape[1], int))
    return np.flatnonzero(n_women >= MIN_WOMEN)


@dataclass(frozen=True)
class EditedEffects:
    """Effects on R (log-probability of the true emotion, nats) of the latents that are not edited, to first order.

    effect = sum over tokens of f * dR/df         f as without the edit, dR/df in the edited model

    An edit of more latents sets these to their target and leaves every other f as it is, because the edits keep the
    SAE's reconstruction error. So f stays that of the unedited tokens, and only the gradient is taken in the edited
    model. Tokens that cannot reach the embedding (patches after the last block) are left out.

    images: the images whose effects are computed, and how latents are edited.
    candidates: indices of the latents whose effects are computed.
    """

    images: EditedImages
    candidates: Int[np.ndarray, " c"]

    @cached_property
    def activations(self) -> list[Float[Tensor, "n token c"]]:
        """The activations of the candidates on the unedited tokens of each batch (sparse).

        They are the same in all steps of all searches, so they are computed once.
        """
        spliced = self.images.spliced
        chosen = torch.from_numpy(self.candidates).to(spliced.clip.device)
        reaching = (batch.tokens[:, spliced.reaching] for batch in self.images.batches)
        return [spliced.sae.encode(tokens, chosen).to_sparse() for tokens in reaching]

    @cached_property
    def decoder(self) -> Float[Tensor, "c d_in"]:
        """Decoder rows of the candidates."""
        spliced = self.images.spliced
        return spliced.sae.W_dec[torch.from_numpy(self.candidates).to(spliced.clip.device)]

    @torch.no_grad()
    def __call__(self, edited: list[int], labels: SearchLabels = TRUE_LABELS) -> dict[str, Float[np.ndarray, "pair c"]]:
        """Compute the effect of each candidate on each image, nats, while the latents `edited` are edited.

        labels: what counts as the emotion of an image, and as the losing twin; the truth if not given.
        Returns the keys `semi_nude` and `clothed`. Each holds a row per pair and a column per candidate.
        """
        images, parts = self.images, []
        for (tokens, emotions), f in zip(images.edited(edited, labels), self.activations, strict=True):
            gradient = images.spliced.gradient(tokens, emotions)
            parts.append(attribution_patching_effect(self.decoder, f.to_dense(), gradient).cpu().numpy())
        return labels.split(images.pairs, np.concatenate(parts))

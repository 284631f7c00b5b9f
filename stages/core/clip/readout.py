"""The emotion readout R of CLIP, and its gradient in the residual stream.

R = log-probability of the true emotion among the emotion prompts, at the model's own logit scale
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stages.core.clip.vit import FrozenClip


@dataclass(frozen=True)
class Readout:
    """The emotion prompts as CLIP sees them: their unit-norm embeddings, and the model's logit scale."""

    prompts: Float[Tensor, "emotion embed"]
    scale: float

    @classmethod
    def from_prompts(cls, clip: FrozenClip, prompts: list[str]) -> Readout:
        """Embed the prompts, one for each emotion."""
        return cls(clip.text(prompts), clip.logit_scale)

    def log_probabilities(self, embeddings: Float[Tensor, "*n embed"]) -> Float[Tensor, "*n emotion"]:
        """Log-probability of each emotion, in nats, from unit-norm image embeddings."""
        return torch.log_softmax(self.scale * embeddings @ self.prompts.T, dim=-1)

    def score(self, embeddings: Float[Tensor, "*n embed"], truth: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """R: log-probability of the true emotion, in nats. truth: index of each image's true emotion."""
        return self.log_probabilities(embeddings).gather(-1, truth[..., None])[..., 0]

    def correct(self, embeddings: Float[Tensor, "*n embed"], truth: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """1 where the most probable emotion is the true one, else 0."""
        return (self.log_probabilities(embeddings).argmax(-1) == truth).float()


def skill(accuracy: float, n_classes: int) -> float:
    """Rescale an accuracy: chance, one in `n_classes`, becomes 0, and 1 stays 1."""
    chance = 1 / n_classes
    return (accuracy - chance) / (1 - chance)


def gradient(
    clip: FrozenClip, readout: Readout, tokens: Float[Tensor, "n token width"], truth: Int[Tensor, " n"], layer: int
) -> Float[Tensor, "n token width"]:
    """dR/dx at the residual stream after `layer`, in nats per unit of activation.

    tokens: x, the residual stream there. truth: index of each image's true emotion.
    To first order, zeroing a latent costs sum_tokens f dR/df.
    """
    x = tokens.detach().requires_grad_()
    with torch.enable_grad():
        total = readout.score(clip.tail(x, layer), truth).sum()
        return torch.autograd.grad(total, x)[0]

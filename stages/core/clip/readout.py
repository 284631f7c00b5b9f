"""The emotion readout R of CLIP, and its gradient in the residual stream.

R = log-probability of the true emotion among the emotion prompts, at the model's own logit scale
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from stages.core.clip.vit import FrozenClip


@dataclass(frozen=True)
class Readout:
    """A zero-shot classifier of emotions, made of embedded prompts.

    prompts: unit-norm text embeddings, a row per emotion, in the order of `Dataset.emotions`. If an emotion has several
        prompts, their embeddings are averaged (Radford et al. 2021, section 3.1.4).
    scale: CLIP's own factor on cosines before the softmax (logit scale).
    """

    prompts: Float[Tensor, "emotion embed"]
    scale: float

    @classmethod
    def from_prompts(cls, clip: FrozenClip, prompts: Iterable[list[str]]) -> Readout:
        """Return the classifier made of the embedded prompts and the logit scale of `clip`.

        prompts: one or more texts for each emotion. The order of emotions is that of all results.
        """
        embedded = [clip.text(texts).mean(0) for texts in prompts]
        return cls(normalize(torch.stack(embedded), dim=-1), clip.logit_scale)

    def log_probabilities(self, embeddings: Float[Tensor, "*n embed"]) -> Float[Tensor, "*n emotion"]:
        """Return the log-probability of each emotion for each image, in nats.

        embeddings: unit-norm image embeddings. The last axis of the result has the order of the prompts.
        """
        return torch.log_softmax(self.scale * embeddings @ self.prompts.T, dim=-1)

    def score(self, embeddings: Float[Tensor, "*n embed"], truth: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return R for each image: the log-probability of its true emotion, in nats.

        embeddings: unit-norm image embeddings. truth: index of each image's true emotion among the prompts.
        """
        return self.log_probabilities(embeddings).gather(-1, truth[..., None])[..., 0]

    def slope(self, embeddings: Float[Tensor, "n embed"], truth: Int[Tensor, " n"]) -> Float[Tensor, "n embed"]:
        """Return dR/de for each image, in nats: the direction in the embedding e that raises R.

        dR/de = scale * (prompt of the true emotion - mean prompt, each weighted with its probability)

        embeddings: unit-norm image embeddings. truth: index of each image's true emotion among the prompts.
        e is any vector here: that embeddings have unit norm is not part of the derivative.
        """
        expected = self.log_probabilities(embeddings).exp() @ self.prompts
        return self.scale * (self.prompts[truth] - expected)

    def correct(self, embeddings: Float[Tensor, "*n embed"], truth: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return 1 for each image whose most probable emotion is the true one, and 0 for the others.

        embeddings: unit-norm image embeddings. truth: index of each image's true emotion among the prompts.
        """
        return (self.log_probabilities(embeddings).argmax(-1) == truth).float()


def embedded_each(clip: FrozenClip, texts: Sequence[str]) -> Float[Tensor, "n embed"]:
    """Return the unit-norm embedding of each text, in order. A text that stands several times is embedded once."""
    distinct = sorted(set(texts))
    embedded = clip.text(distinct)
    return embedded[[distinct.index(text) for text in texts]]


def skill(accuracy: float, n_classes: int) -> float:
    """Rescale an accuracy, so that chance is 0 and a perfect score is 1.

    accuracy: share of correct answers, 0 to 1. n_classes: number of possible answers.
    Returns (accuracy - chance) / (1 - chance), with chance = 1 / n_classes. It is negative below chance.
    """
    chance = 1 / n_classes
    return (accuracy - chance) / (1 - chance)


def gradient(
    clip: FrozenClip, readout: Readout, tokens: Float[Tensor, "n token width"], truth: Int[Tensor, " n"], layer: int
) -> Float[Tensor, "n token width"]:
    """Return dR/dx for each image, in nats per unit of x.

    R is the log-probability of the true emotion of the image. x is the residual stream of the image.
    readout: the emotion prompts, embedded by `clip`.
    tokens: the residual stream x after `layer`, class token first.
    truth: index of each image's true emotion among the prompts.
    layer: block of the vision tower, counted from 1.
    The gradient estimates how much R depends on a latent of an SAE. Let f be the activation of the latent on a token.
    dR/df is the dot product of dR/dx and the decoder row of the latent. If f is set to zero on all tokens, R falls by
    about the sum of f dR/df over tokens.
    """
    x = tokens.detach().requires_grad_()
    with torch.enable_grad():
        total = readout.score(clip.tail(x, layer), truth).sum()
        return torch.autograd.grad(total, x)[0]

"""Centring and scaling of the tokens that an SAE is trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stages.core.training.batches import CHUNK
from stages.core.training.settings import TrainingError

ROUNDING = 1e-12  # share of |mean|^2: float64 sums cannot tell a smaller variance from zero


@dataclass(frozen=True)
class Normalisation:
    """Centring and scaling of tokens x: x_normalised = (x - mean) * scale.

    The scale is such that the mean of |x_normalised|^2 over tokens is d_in, the width of a token.
    """

    mean: Float[Tensor, " d_in"]
    scale: float

    @classmethod
    def from_tokens(cls, tokens: Tensor | Iterable[Tensor]) -> Normalisation:
        """Measure the mean of tokens x, and their scale sqrt(d_in / E|x - mean|^2). Returns both as a normalisation.

        d_in is the width of a token. E is the mean over tokens. Sums run in float64.
        tokens: an array of shape [n, d_in], or an iterable of such arrays.
        Raises TrainingError if the tokens are constant or not finite.
        """
        n, mean, squares = 0, torch.zeros(()), 0.0  # chunks are joined as in Chan, Golub and LeVeque 1983
        for chunk in (tokens,) if isinstance(tokens, Tensor) else tokens:
            chunk_mean = chunk.mean(0, dtype=torch.float64)
            within = sum(float((rows.double() - chunk_mean).square().sum()) for rows in chunk.split(CHUNK))
            shift = chunk_mean - mean if n else torch.zeros_like(chunk_mean)
            squares += within + float(shift.square().sum()) * n * len(chunk) / (n + len(chunk))
            mean = (mean if n else chunk_mean) + shift * len(chunk) / (n + len(chunk))
            n += len(chunk)
        return cls.from_moments(mean, squares / max(n, 1))

    @classmethod
    def from_moments(cls, mean: Float[Tensor, " d_in"], mean_squared_norm: float) -> Normalisation:
        """Return the normalisation with a given mean and the scale sqrt(d_in / mean_squared_norm).

        d_in is the width of a token.
        mean: mean of the tokens. mean_squared_norm: mean over tokens of |x - mean|^2. Both are measured in float64.
        Raises TrainingError if the tokens are constant or not finite.
        """
        if not np.isfinite(mean_squared_norm):
            raise TrainingError("activations are not finite (NaN or infinite); the model or its precision is at fault")
        if mean_squared_norm <= ROUNDING * float(mean.square().sum()):
            raise TrainingError("activations have no variance; this layer carries nothing to learn")
        return cls(mean.float(), (len(mean) / mean_squared_norm) ** 0.5)

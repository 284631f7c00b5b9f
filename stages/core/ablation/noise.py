"""Matched noise: a random change of the residual stream, as long as another arm's change at each token."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stages.core.intervention.spliced_clip import Arm, ImageBatch


def gaussian_noise(batch: ImageBatch, seed: int) -> Tensor:
    """Standard normal numbers in the shape of the batch's tokens.

    They follow from the seed and the rows of the batch.
    """
    rng = np.random.default_rng([seed, *batch.rows.tolist()])
    return torch.from_numpy(rng.standard_normal(batch.tokens.shape, dtype=np.float32)).to(batch.tokens)


def matched_noise(arm: Arm, seed: int) -> Arm:
    """Build the arm that adds, at each token, a random vector as long as the change that `arm` makes there.

    The vectors follow from the seed and the rows of the batch, so the same batch always gets the same noise.
    """

    def apply(batch: ImageBatch) -> Tensor:
        x, direction = batch.tokens, gaussian_noise(batch, seed)
        length = (x - arm(batch)).norm(dim=-1, keepdim=True)
        return x + direction * (length / direction.norm(dim=-1, keepdim=True))

    return apply

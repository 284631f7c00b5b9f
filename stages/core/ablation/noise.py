"""Matched noise: a random change of the residual stream, as long as another arm's change at each token.

An arm is a function from the tokens of a batch of images to the tokens that go on.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stages.core.latents.spliced_clip import Arm, ImageBatch


def gaussian_noise(batch: ImageBatch, seed: int) -> Tensor:
    """Draw independent standard normal numbers. Returns them in the shape of the batch's tokens, [image, token, width].

    batch: the images, with their tokens. seed: seed of the numbers.
    The seed and the row numbers of the batch's images fix the numbers, so the same batch always gets the same noise.
    """
    rng = np.random.default_rng([seed, *batch.rows.tolist()])
    return torch.from_numpy(rng.standard_normal(batch.tokens.shape, dtype=np.float32)).to(batch.tokens)


def matched_noise(arm: Arm, seed: int) -> Arm:
    """Build an arm that adds a random vector to each token.

    The vector has the norm of the change that another arm makes at this token.

    arm: the other arm, a function from a batch to the tokens that replace its residual stream.
    seed: seed of the random vectors.
    The seed and the row numbers of the batch's images fix the vectors, so the same batch always gets the same noise.
    """

    def apply(batch: ImageBatch) -> Tensor:
        x, direction = batch.tokens, gaussian_noise(batch, seed)
        length = (x - arm(batch)).norm(dim=-1, keepdim=True)
        return x + direction * (length / direction.norm(dim=-1, keepdim=True))

    return apply

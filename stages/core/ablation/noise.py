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
    The seed and the row number of an image fix its numbers. So an image has the same noise in every batch.
    """
    shape = batch.tokens.shape[1:]
    each = [np.random.default_rng([seed, row]).standard_normal(shape, np.float32) for row in batch.rows.tolist()]
    return torch.from_numpy(np.array(each, np.float32).reshape(-1, *shape)).to(batch.tokens)


def matched_noise(arm: Arm, seed: int) -> Arm:
    """Build an arm that adds a random vector to each token.

    The vector has the norm of the change that another arm makes at this token.

    arm: the other arm, a function from a batch to the tokens that replace its residual stream.
    seed: seed of the random vectors.
    The seed and the row number of an image fix its vectors. So an image has the same noise in every batch.
    """

    def apply(batch: ImageBatch) -> Tensor:
        x, direction = batch.tokens, gaussian_noise(batch, seed)
        length = (x - arm(batch)).norm(dim=-1, keepdim=True)
        return x + direction * (length / direction.norm(dim=-1, keepdim=True))

    return apply

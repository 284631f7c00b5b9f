"""The sparsity term of the loss, and its derivative with respect to L0, for both recipes.

`published`   coefficient * L0 / d_sae
`target_l0`   coefficient * warm-up * ((L0 - target) / target)^2

L0 is the mean number of active latents per token. The factor `warm-up` rises from 0 to 1 over the first steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.core.training.settings import TrainConfig


def term(config: TrainConfig, n_steps: int, l0: Tensor) -> Tensor:
    """Compute the sparsity term of the loss, one number.

    config: the recipe, the coefficient, the target of L0 and the length of the warm-up.
    n_steps: number of steps done before this one.
    l0: mean number of active latents per token of the batch.
    """
    if config.recipe == "published":
        return config.sparsity_coefficient * l0 / config.d_sae
    distance = (l0 - config.target_l0) / config.target_l0
    return config.sparsity_coefficient * _warmup_factor(config, n_steps) * distance.square()


def slope(config: TrainConfig, n_steps: int, l0: Tensor) -> Tensor:
    """Compute the derivative of the sparsity term of the loss with respect to L0, one number.

    config: the recipe, the coefficient, the target of L0 and the length of the warm-up.
    n_steps: number of steps done before this one.
    l0: mean number of active latents per token of the batch.
    """
    if config.recipe == "published":
        return torch.full_like(l0, config.sparsity_coefficient / config.d_sae)
    distance = l0 - config.target_l0
    return config.sparsity_coefficient * _warmup_factor(config, n_steps) * 2 * distance / config.target_l0**2


def _warmup_factor(config: TrainConfig, n_steps: int) -> float:
    """Factor on the sparsity term: rises linearly from 0 to 1 during the warm-up."""
    warmup = config.warmup_share * config.steps
    return 1.0 if warmup == 0 else min(1.0, n_steps / warmup)

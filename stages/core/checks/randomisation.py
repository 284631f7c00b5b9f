"""The randomisation cascade (Adebayo et al. 2018): a map that explains a model must change with its parameters.

Parameters of the vision tower are drawn anew from the top down: the projection with the norm before it, the blocks
from the last to the first, then the embeddings. Every parameter of a group is drawn, also `in_proj_weight`, the class
token and the positions. These belong to no `nn.Linear` and are easily forgotten.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def parameter_groups(visual: Any) -> list[tuple[str, list[nn.Parameter]]]:
    """Group all parameters of a vision tower for randomising one group after another, from the top down.

    visual: the vision tower of an open_clip ViT.
    Returns the name and the parameters of each group, in this order:
        projection    the projection and the layer norm before it
        block L       one group per block, from the last block to block 1
        embeddings    all other parameters, such as the class token and the positions
    """
    blocks = list(visual.transformer.resblocks)
    found = [("projection", [visual.proj, *visual.ln_post.parameters()])]
    found += [(f"block {i}", list(blocks[i - 1].parameters())) for i in range(len(blocks), 0, -1)]
    named = {id(parameter) for _, parameters in found for parameter in parameters}
    rest = [parameter for parameter in visual.parameters() if id(parameter) not in named]
    return [*found, ("embeddings", rest)]


def randomised(model: nn.Module, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """Randomise the vision tower of a copy of `model`, group by group, from the top down. `model` does not change.

    Each parameter tensor is filled with random normal values. Their mean and standard deviation are those of the old
    values of this tensor; 0 and 1 for a single value, which has no standard deviation.

    model: an open_clip model with a ViT as its vision tower.
    seed: seed of the random values.
    Yields, after each group, the name of the group (see `parameter_groups`) and the copy. The copy is the same object
    each time. Earlier groups stay randomised.
    """
    changed: Any = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for name, parameters in parameter_groups(changed.visual):
        for parameter in parameters:
            parameter.data = _redrawn(parameter.data, generator)
        yield name, changed


def _redrawn(values: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(values.shape, generator=generator).to(values)
    return noise if values.numel() < 2 else values.mean() + values.std() * noise

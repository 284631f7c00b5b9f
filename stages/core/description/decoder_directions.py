"""Description of decoder directions, which latents write into the residual stream: nearest directions and prompts.

Prompts are found in the style of the logit lens (nostalgebraist 2020): the direction passes the final layer norm and
the projection as if it were alone after the last block. The blocks in between are skipped, so for an early layer the
prompts are only a hint.
"""

from __future__ import annotations

from itertools import product
from string import Formatter

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from stages.core.clip.vit import FrozenClip
from stages.core.run import text


def neighbours(
    W_dec: Float[Tensor, "d_sae d_in"], latents: Int[np.ndarray, " k"], n: int
) -> tuple[Int[np.ndarray, "k n"], Float[np.ndarray, "k n"]]:
    """Find for each of `latents` the `n` other latents with the nearest decoder directions.

    W_dec: decoder rows of all latents of the SAE.
    latents: indices of some latents.
    n: number of neighbours to find.
    Returns two arrays with a row for each of `latents`. The first holds the indices of the neighbours. The second holds
    the cosines of their decoder directions with that of the latent. The nearest neighbour comes first. If the SAE has
    fewer than `n` other latents, all of them are returned.
    """
    directions = normalize(W_dec.detach(), dim=1)
    chosen = torch.tensor(latents, device=directions.device)
    cosines = directions[chosen] @ directions.T
    cosines[torch.arange(len(chosen)), chosen] = -torch.inf
    found = cosines.topk(min(n, len(W_dec) - 1), dim=1)
    return found.indices.cpu().numpy(), found.values.cpu().numpy()


def vocabulary(templates: list[str], images: pd.DataFrame) -> list[str]:
    """Write prompts from templates: each {column} is replaced by every value that the images have in this column.

    templates: texts with names of columns in braces, such as "a {emotion} woman". A template with several names gives
        all combinations of the columns' values. The article before a name fits each value ("an angry woman").
    images: a row per image, with a column of labels for each name in braces. Empty labels are skipped.
    Returns the prompts without repeats. Raises ValueError if a name in braces is not a column of `images`.
    """
    prompts = []
    for template in templates:
        columns = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
        missing = [name for name in columns if name not in images]
        if missing:
            raise ValueError(f"{template!r}: the manifest has no column {missing[0]!r}; take the prompt out")
        values = [sorted(set(images[name]) - {""}) for name in columns]
        prompts += [text.filled(template, **dict(zip(columns, combined, strict=True))) for combined in product(*values)]
    return list(dict.fromkeys(prompts))


def prompt_cosines(
    clip: FrozenClip, directions: Float[Tensor, "k d_in"], prompts: list[str]
) -> Float[np.ndarray, "k prompt"]:
    """Compute the cosine of each direction with each prompt, in the joint space of images and texts.

    The mean embedding of all prompts is subtracted from the embedding of each prompt. So the cosine compares the
    direction with what distinguishes a prompt from the other prompts.

    clip: the audited CLIP.
    directions: directions in the residual stream, such as decoder rows. CLIP's final layer norm and projection are
        applied to each direction, as if it were a token after the last block (logit lens).
    prompts: at least two texts.
    Returns a row per direction, a column per prompt.
    """
    embedded = clip.text(prompts)
    distinct = normalize(embedded - embedded.mean(0), dim=1)
    return (normalize(clip.project(directions), dim=1) @ distinct.T).cpu().numpy()

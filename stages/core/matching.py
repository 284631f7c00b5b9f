"""Which latents two SAEs share: one-to-one pairs by the cosine of their decoder directions.

Two trainings that differ in their seed alone should find the same features; what only one of them found
is as much the seed's as the data's (Paulo and Belrose 2025, arXiv 2501.16615, measure it so too).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

ALIKE = 0.7  # cosine from which two latents count as the same feature


def matched_share(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """Share of the rows of `a` whose partner among the rows of `b` has a cosine of at least ALIKE.

    Partners come from the Hungarian method (greatest sum of cosines), among rows that have any row alike: no
    other could count.
    """
    cosines = torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T
    cosines = cosines[cosines.amax(1) >= ALIKE]
    cosines = cosines[:, cosines.amax(0) >= ALIKE] if len(cosines) else cosines
    rows, columns = linear_sum_assignment(cosines.cpu().numpy(), maximize=True)
    return float((cosines[rows, columns] >= ALIKE).sum()) / len(a)

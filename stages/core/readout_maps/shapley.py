"""Exact Shapley values of R over the regions of an image (Shapley 1953), and the interaction of two regions. Nats.

A coalition is a set of regions that are visible; the others are hidden. With k regions there are 2^k coalitions, and R
of all of them is computed. A coalition is a number whose bit i tells whether region i is visible.

    value of i             mean, over all orders in which regions appear, of what R gains when i appears
    interaction of i, j    mean of R(S, i, j) - R(S, i) - R(S, j) + R(S) over the sets S of other regions, weighted as
                           in the Shapley interaction index (Grabisch and Roubens 1999)

The values add up to R(image) - R(hidden image). The interaction is 0 if what one region does to R does not depend on
the other. It is above 0 if the two help each other, and below 0 if each makes up for the other, or gets in its way.
"""

from __future__ import annotations

from math import factorial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stages.core.readout_maps.changed_inputs import HidableImages

PLAYERS = ("face", "bust", "rest")
"""The regions, in the order of all arrays here. What is in both masks belongs to the face."""


def partition(face: Float[Tensor, "n s s"], bust: Float[Tensor, "n s s"]) -> Float[Tensor, "n 3 s s"]:
    """Divide each image into `PLAYERS`: face, bust and rest. Each pixel's shares add up to 1.

    face, bust: share of each pixel inside the region, 0 to 1.
    """
    bust = bust * (1 - face)
    return torch.stack([face, bust, 1 - face - bust], 1)


def coalition_readouts(images: HidableImages, regions: Float[Tensor, "n k s s"]) -> Float[Tensor, "n coalition ..."]:
    """Compute R of each image for every coalition of its regions, nats.

    images: the images, what hides a region of them, and the model or the arms that read them.
    regions: share of each pixel that belongs to each region. The shares of a pixel add up to 1.
    Returns R under each arm if there are several. The first coalition is the hidden image, the last one the unchanged
    image.
    """
    k = regions.shape[1]
    members = torch.arange(2**k)[:, None] >> torch.arange(k) & 1
    return images.R(torch.einsum("ck,nkyx->ncyx", members.to(regions), regions))


def shapley_values(readouts: Float[np.ndarray, "n coalition"]) -> Float[np.ndarray, "n k"]:
    """Compute the Shapley value of each region. readouts: R of each image for every coalition."""
    k = _n_regions(readouts)
    found = np.zeros((len(readouts), k))
    for i in range(k):
        for others, weight in _sets_without(k, 1 << i):
            found[:, i] += weight * (readouts[:, others | 1 << i] - readouts[:, others])
    return found


def interaction(readouts: Float[np.ndarray, "n coalition"], i: int, j: int) -> Float[np.ndarray, " n"]:
    """Compute the Shapley interaction index of two regions.

    readouts: R of each image for every coalition. i, j: numbers of two different regions.
    """
    one, other = 1 << i, 1 << j
    found = np.zeros(len(readouts))
    for rest, weight in _sets_without(_n_regions(readouts), one | other):
        both, first, second, none = (readouts[:, rest | seen] for seen in (one | other, one, other, 0))
        found += weight * (both - first - second + none)
    return found


def _n_regions(readouts: np.ndarray) -> int:
    return readouts.shape[1].bit_length() - 1


def _sets_without(k: int, left_out: int) -> list[tuple[int, float]]:
    """All sets of the regions that are not in `left_out`, and the weight of each. The weights add up to 1."""
    m = k - left_out.bit_count()
    sizes = [(others, others.bit_count()) for others in range(2**k) if not others & left_out]
    return [(others, factorial(size) * factorial(m - size) / factorial(m + 1)) for others, size in sizes]

"""Activations with a known dictionary: sparse non-negative codes over random unit features, without noise.

Each feature is active on its own with the same probability, its magnitude uniform on (.5, 1.5), as in
`test_a_known_dictionary_is_recovered`. There are eight times more features than dimensions, so they overlap.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

CHUNK = 1024  # samples whose codes are held at once
APART = 1_000_003  # added to the seed: a trainer that draws its decoder from the same seed would start at the solution


class Toy:
    """`tokens` continues one random sequence; dictionary and sequence are functions of the seed."""

    def __init__(self, seed: int, d_in: int = 64, n_features: int = 512, n_active: float = 8):
        self.generator = torch.Generator().manual_seed(APART + seed)
        self.features = normalize(torch.randn(n_features, d_in, generator=self.generator), dim=1)
        self.n_active = n_active

    def tokens(self, n: int) -> Float[Tensor, "n d_in"]:
        """Fresh samples."""
        return torch.cat([self._codes(min(CHUNK, n - start)) @ self.features for start in range(0, n, CHUNK)])

    def mean_best_cosine(self, W_dec: Float[Tensor, "d_sae d_in"]) -> float:
        """Cosine of each true feature with the decoder row most like it, mean over the features."""
        return float((self.features @ normalize(W_dec, dim=1).T).amax(1).mean())

    def _codes(self, n: int) -> Float[Tensor, "n n_features"]:
        shape = (n, len(self.features))
        active = torch.rand(shape, generator=self.generator) < self.n_active / len(self.features)
        return active * (0.5 + torch.rand(shape, generator=self.generator))


def l0(f: Float[Tensor, "n d_sae"]) -> float:
    """Latents active per sample."""
    return float((f != 0).sum(1, dtype=torch.float32).mean())


def dead_share(f: Float[Tensor, "n d_sae"]) -> float:
    """Share of latents active on no sample."""
    return float((f == 0).all(0).float().mean())

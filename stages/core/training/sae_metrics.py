"""Quality of an SAE on some tokens (FVU, L0, dead latents), and the share of its latents that another training finds.

    FVU = sum |x - x_hat|^2 / sum |x - mean|^2      mean: of the training tokens; predicting it scores exactly 1

Sums run in float64 over all tokens. FVU is a ratio of sums, never a mean of ratios.

Two trainings that differ only in their seed should find the same features. A feature that only one of them finds
depends on the seed as much as on the data. Paulo and Belrose 2025 (arXiv 2501.16615) measure it in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from stages.core.sae import JumpReLUSAE

BATCH = 1024  # tokens encoded at once
MATCHING_COSINE = 0.7  # cosine from which two latents count as the same feature


@dataclass(frozen=True)
class Fit:
    """Errors and firings of an SAE, summed over some tokens.

    Two objects can be added with `+`. The result holds the sums over both sets of tokens, which must not overlap.
    n_tokens: number of tokens. d_in: width of a token.
    """

    n_tokens: int
    d_in: int
    squared_error: float
    """Sum over tokens of |x - x_hat|^2."""
    squared_distance: float
    """Sum over tokens of |x - mean|^2, with the mean of the tokens that the SAE was trained on."""
    firings: Float[Tensor, " d_sae"]
    """Number of tokens on which each latent fired."""

    def __add__(self, other: Fit) -> Fit:
        return Fit(
            self.n_tokens + other.n_tokens,
            self.d_in,
            self.squared_error + other.squared_error,
            self.squared_distance + other.squared_distance,
            self.firings + other.firings,
        )

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained (FVU): sum |x - x_hat|^2 / sum |x - mean|^2, over tokens x.

        The mean is that of the training tokens. A perfect SAE scores 0. Always predicting the mean scores exactly 1.
        """
        return self.squared_error / self.squared_distance

    @property
    def l0(self) -> float:
        """Mean number of active latents per token."""
        return float(self.firings.sum()) / self.n_tokens

    @property
    def recon(self) -> float:
        """Mean squared error of the reconstruction, over tokens and dimensions, in raw units."""
        return self.squared_error / (self.n_tokens * self.d_in)

    @property
    def dead_fraction(self) -> float:
        """Share of latents that fired on none of the tokens."""
        return float((self.firings == 0).double().mean())


@torch.no_grad()
def fit(sae: JumpReLUSAE, tokens: Float[Tensor, "n d_in"], mean: Float[Tensor, " d_in"]) -> Fit:
    """Run an SAE over tokens, and sum the reconstruction errors and the firings of the latents.

    sae: the SAE.
    tokens: tokens of the residual stream as CLIP gives them, not normalised. They need not be those trained on.
    mean: mean of the tokens that the SAE was trained on. The sum of |x - mean|^2 over `tokens` x is what the squared
        error of the SAE is compared with: the error of always predicting the mean.
    Returns the sums. Properties of the returned object give FVU (fraction of variance unexplained), L0 (active latents
    per token), the mean squared error and the share of dead latents.
    """
    error = distance = 0.0
    firings = torch.zeros(sae.d_sae, dtype=torch.float64, device=tokens.device)
    for x in tokens.split(BATCH):
        f = sae.encode(x)
        error += float((x.double() - sae.decode(f).double()).square().sum())
        distance += float((x.double() - mean.double()).square().sum())
        firings += (f > 0).sum(0)
    return Fit(len(tokens), sae.d_in, error, distance, firings)


def matched_share(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """Compute the share, 0 to 1, of the latents of SAE a that SAE b has too.

    a, b: decoders of the two SAEs, a row per latent. Rows of any norm are allowed.
    The cosine of two latents is the cosine of their decoder rows.
    First, a latent is left out if its cosine with every latent of the other SAE is below MATCHING_COSINE (0.7).
    The Hungarian method then pairs the remaining latents one to one, so that the sum of cosines is greatest.
    A pair counts if its cosine is at least 0.7.
    Returns the number of pairs that count, divided by the number of rows of `a`.
    """
    cosines = normalize(a, dim=1) @ normalize(b, dim=1).T
    cosines = cosines[cosines.amax(1) >= MATCHING_COSINE]
    cosines = cosines[:, cosines.amax(0) >= MATCHING_COSINE] if len(cosines) else cosines
    rows, columns = linear_sum_assignment(cosines.cpu().numpy(), maximize=True)
    return float((cosines[rows, columns] >= MATCHING_COSINE).sum()) / len(a)

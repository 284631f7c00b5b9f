"""An attacker who has the CLIP and images of his own, and his attacks on an SAE.

What he can do is measured in reconstruction.py. An attack gives a set of pictures; the best of the set counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from stages.core.clip import vit
from stages.core.clip.vit import FrozenClip
from stages.core.sae import JumpReLUSAE

PENALTIES = (1e-6, 1e-4, 1e-2, 1.0, 100.0)  # shares of the features' mean variance
LENGTHS = (0.25, 0.5, 1.0, 2.0)  # of a latent's activation, times the typical distance of a token from the mean
STRENGTHS = (0.125, 0.25, 0.5, 1.0)  # of a picture around the mean picture
N_ROUNDS, N_STARTS = 10, 12  # of the attacks that start from the attacker's images
N_STEPS, STEP = 40, 0.02  # of the search for pictures
AT_ONCE = 40  # images per forward pass
SMALL = 32  # side of whole pictures, pixels
SEARCH = "search for pictures"
ON_LATENTS = ("a latent as a class token", "latents as patches")  # attacks that need no reconstruction

Fit = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Seen:
    """Images and what the model makes of them. pixels: [n, s, s, 3], 0 to 1. tokens: [n, token, width], class first."""

    pixels: Tensor
    tokens: Tensor

    @property
    def small(self) -> Tensor:
        """[n, 32, 32, 3]"""
        return shrunk(self.pixels)

    def __len__(self) -> int:
        return len(self.pixels)


def shrunk(pixels: Tensor) -> Tensor:
    """Averages over squares of pixels: [n, s, s, 3] -> [n, 32, 32, 3]."""
    by = pixels.shape[1] // SMALL
    return avg_pool2d(pixels.permute(0, 3, 1, 2), by).permute(0, 2, 3, 1)


def look(clip: FrozenClip, layer: int, pictures: np.ndarray) -> Seen:
    """The tokens of images after a block."""
    parts = [pictures[i : i + AT_ONCE] for i in range(0, len(pictures), AT_ONCE)]
    tokens = [clip.residuals(clip.pixels(part), [layer])[1][layer].float() for part in parts]
    return Seen(torch.from_numpy(pictures).float() / 255, torch.cat(tokens))


def matched(found: Tensor, truth: Tensor) -> float:
    """Share of pictures that are nearer to the image of the same row than to any other."""
    return share_of_diagonal(torch.cdist(found.flatten(1), truth.flatten(1)))


def share_of_diagonal(distances: Tensor) -> float:
    return float((distances.argmin(1) == torch.arange(len(distances))).float().mean())


def ridge(x: Tensor, y: Tensor) -> Fit:
    """Ridge regression of y [n, k] on x [n, d]; the last fifth of the rows chooses the penalty."""
    kept = len(x) - len(x) // 5
    tried = [_solved(x[:kept], y[:kept], penalty) for penalty in PENALTIES]
    errors = [float((fit(x[kept:]) - y[kept:]).square().sum()) for fit in tried]
    return _solved(x, y, PENALTIES[int(np.argmin(errors))])


def _solved(x: Tensor, y: Tensor, penalty: float) -> Fit:
    x_mean, y_mean = x.mean(0), y.mean(0)
    a, b = (x - x_mean).double(), (y - y_mean).double()
    wide = a.shape[0] < a.shape[1]
    gram = a @ a.T if wide else a.T @ a
    gram += (penalty * gram.trace() / len(gram) + 1e-12) * torch.eye(len(gram))
    weights = (a.T @ torch.linalg.solve(gram, b) if wide else torch.linalg.solve(gram, a.T @ b)).float()
    return lambda z: (z - x_mean) @ weights + y_mean


def as_patches(pixels: Tensor, grid: int) -> Tensor:
    """[n, s, s, 3] -> [n, patch, pixels of a patch]."""
    n, side = len(pixels), pixels.shape[1] // grid
    return pixels.reshape(n, grid, side, grid, side, 3).permute(0, 1, 3, 2, 4, 5).reshape(n, grid * grid, -1)


def as_pictures(patches: Tensor, grid: int) -> Tensor:
    """[n, patch, pixels of a patch] -> [n, s, s, 3]."""
    n, side = len(patches), int((patches.shape[-1] // 3) ** 0.5)
    return patches.reshape(n, grid, grid, side, side, 3).permute(0, 1, 3, 2, 4, 5).reshape(n, *(grid * side,) * 2, 3)


class Attacker:
    """The attacker's images, and what he learned from them.

    own: his images. grid: patches along a side.
    """

    def __init__(self, own: Seen, grid: int):
        self.own, self.grid = own, grid
        self.mean, self.small_mean = own.pixels.mean(0), own.small.mean(0)
        patch_tokens, patches = own.tokens[:, 1:].flatten(0, 1), as_patches(own.pixels, grid).flatten(0, 1)
        self.to_patch = ridge(patch_tokens, patches)
        self.to_whole = ridge(own.tokens[:, 0], own.small.flatten(1))
        self.mean_token = own.tokens.mean((0, 1))

    def pictures(self, tokens: Tensor) -> Tensor:
        """From the tokens of the patches of each image, [n, patch, width]."""
        return as_pictures(self.to_patch(tokens).clamp(0, 1), self.grid)

    def r2(self, found: Tensor, truth: Tensor) -> float:
        """R2 of pictures, whole or small."""
        mean = self.mean if truth.shape[1] == len(self.mean) else self.small_mean
        return 1 - float((truth - found).square().sum() / (truth - mean).square().sum())

    def rows(self, own_features: Tensor, features: Tensor, seen: Seen) -> tuple[float, float]:
        """R2 and share matched of pictures from a row of numbers per image, by ridge regression."""
        found = ridge(own_features.flatten(1), self.own.small.flatten(1))(features.flatten(1)).reshape(seen.small.shape)
        return self.r2(found, seen.small), matched(found, seen.small)


def directions(sae: JumpReLUSAE) -> Tensor:
    return sae.W_dec.detach() / sae.W_dec.detach().norm(dim=1, keepdim=True).clamp_min(1e-9)


def whole_pictures(attacker: Attacker, sae: JumpReLUSAE) -> Tensor:
    """Each latent's direction taken for a class token, at several lengths: [candidate, s, s, 3]."""
    mean = attacker.own.tokens[:, 0].mean(0)
    typical = (attacker.own.tokens[:, 0] - mean).norm(dim=1).square().mean().sqrt()
    found = [attacker.to_whole(mean + length * typical * directions(sae)) for length in LENGTHS]
    return torch.cat(found).clamp(0, 1).reshape(-1, *attacker.small_mean.shape)


def patch_pictures(attacker: Attacker, sae: JumpReLUSAE) -> Tensor:
    """Each latent's direction taken for the token of a patch, at several lengths: [candidate, pixels of a patch]."""
    mean = attacker.own.tokens[:, 1:].mean((0, 1))
    typical = (attacker.own.tokens[:, 1:] - mean).norm(dim=-1).square().mean().sqrt()
    return torch.cat([attacker.to_patch(mean + length * typical * directions(sae)) for length in LENGTHS]).clamp(0, 1)


@torch.no_grad()
def attractors(attacker: Attacker, sae: JumpReLUSAE) -> Tensor:
    """Reconstructing again and again draws tokens to what an autoencoder has learned by heart, if anything."""
    tokens = attacker.own.tokens[:N_STARTS]
    for _ in range(N_ROUNDS):
        tokens = torch.stack([sae(x) for x in tokens])
    return faded(attacker, shrunk(attacker.pictures(tokens[:, 1:])))


def faded(attacker: Attacker, pictures: Tensor) -> Tensor:
    """Each picture at several strengths around the attacker's mean picture: [candidate, 32, 32, 3].

    Pictures far from any portrait are worse than the mean picture. An attacker who knows this fades them.
    """
    return torch.cat([attacker.small_mean + strength * (pictures - attacker.small_mean) for strength in STRENGTHS])


def searched(attacker: Attacker, sae: JumpReLUSAE, clip: FrozenClip, layer: int) -> Tensor:
    """Pictures that the SAE reconstructs best, by gradient descent from the attacker's images."""
    pictures = attacker.own.pixels[:N_STARTS].clone().requires_grad_()
    optimizer = torch.optim.Adam([pictures], lr=STEP)
    with torch.enable_grad():
        for _ in range(N_STEPS):
            kept: dict[int, Tensor] = {}
            with vit.recorded_residuals(clip.visual, [layer], kept):
                clip.embed((pictures.permute(0, 3, 1, 2) - clip._mean) / clip._std)
            x = kept[layer]
            loss = (x - sae(x)).square().sum() / (x - attacker.mean_token).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return shrunk(pictures.detach().clamp(0, 1))


def best_whole(attacker: Attacker, candidates: Tensor, seen: Seen) -> np.ndarray:
    """For each image, R2 of that candidate picture which resembles it most."""
    errors = torch.cdist(seen.small.flatten(1), candidates.flatten(1)).square().amin(1)
    return (1 - errors / (seen.small - attacker.small_mean).square().sum((1, 2, 3))).numpy()


def best_mosaic(attacker: Attacker, candidates: Tensor, seen: Seen) -> np.ndarray:
    """For each image, R2 of the mosaic of those candidate patches that resemble its patches most."""
    patches = as_patches(seen.pixels, attacker.grid)
    errors = torch.stack([torch.cdist(image, candidates).square().amin(1).sum() for image in patches])
    return (1 - errors / (seen.pixels - attacker.mean).square().sum((1, 2, 3))).numpy()


Attack = Callable[[JumpReLUSAE], Callable[[Seen], np.ndarray]]
"""From an SAE to a function that gives, for each image, R2 of the best picture of the attack."""


def attacks(attacker: Attacker, clip: FrozenClip, layer: int) -> dict[str, Attack]:
    """The attacks on an SAE, by name."""
    return {
        "a latent as a class token": lambda sae: partial(best_whole, attacker, whole_pictures(attacker, sae)),
        "latents as patches": lambda sae: partial(best_mosaic, attacker, patch_pictures(attacker, sae)),
        "attractors": lambda sae: partial(best_whole, attacker, attractors(attacker, sae)),
        SEARCH: lambda sae: partial(best_whole, attacker, searched(attacker, sae, clip, layer)),
    }

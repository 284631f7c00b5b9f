"""Splice arms and edits: what the residual stream becomes when an SAE stands in it.

    original        x
    reconstructed   D(f)                      carries the SAE's reconstruction error
    noise           x + a random vector of the norm of x - D(f), token by token: damage without meaning
    edited          x + D(f') - D(f)          the reconstruction error is kept, so that only the edit acts

With nothing edited, `edited` is `original` exactly: only the chosen latents are encoded and decoded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stages.core import sections
from stages.core.dataset import INSIDE
from stages.core.sae import JumpReLUSAE

NEAREST_PER_LATENT = 4  # a control is drawn among so many like latents for each one chosen, to keep it alike


class ControlsError(SystemExit):
    """Too few latents to draw control sets from. Exits with the keys to change."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A change of some latents.

    kind: `zero`; `mean`, set to `means` (of the class token, of patches); `scale`, multiplied by `factor`; `patch`,
    set to the twin's value.
    """

    latents: Int[Tensor, " k"]
    kind: sections.EditKind = "zero"
    factor: float = 0.0
    means: Float[Tensor, "2 k"] | None = None

    @classmethod
    def of(
        cls,
        config: sections.Edit,
        latents: Int[np.ndarray, " k"],
        means: Float[np.ndarray, "2 d_sae"],
        device: torch.device,
    ) -> Edit:
        """The edit of params.yaml, applied to `latents`; `means` are over discovery images."""
        chosen = torch.tensor(np.asarray(latents, dtype=np.int64), device=device)
        return cls(
            latents=chosen,
            kind=config.kind,
            factor=config.factor,
            means=torch.tensor(means, dtype=torch.float32, device=device)[:, chosen],
        )


def edited(
    x: Float[Tensor, "n token d_in"],
    sae: JumpReLUSAE,
    edit: Edit,
    *,
    where: Bool[Tensor, "n token"] | None = None,
    twin: Float[Tensor, "n token d_in"] | None = None,
) -> Float[Tensor, "n token d_in"]:
    """x + D(f') - D(f). `where` limits the edit to some tokens; `twin` holds the twin's tokens, for `patch`."""
    f = sae.encode(x, edit.latents)
    change = _target(f, sae, edit, twin) - f
    if where is not None:
        change = change * where[..., None]
    return x + change @ sae.W_dec[edit.latents]


def _target(f: Tensor, sae: JumpReLUSAE, edit: Edit, twin: Tensor | None) -> Tensor:
    if edit.kind == "zero":
        return torch.zeros_like(f)
    if edit.kind == "scale":
        return f * edit.factor
    if edit.kind == "mean":
        if edit.means is None:
            raise ValueError("a mean edit needs the latents' means")
        cls, patches = edit.means[0].expand_as(f[:, :1]), edit.means[1].expand_as(f[:, 1:])
        return torch.cat([cls, patches], dim=1)
    if twin is None:
        raise ValueError("a patch edit needs the twin's tokens")
    return sae.encode(twin, edit.latents)


def scope(
    kind: sections.EditScope, n: int, n_tokens: int, bust: Float[np.ndarray, "n gh gw"] | None = None
) -> Bool[Tensor, "n token"]:
    """Which tokens an edit touches; token 0 is the class token. A patch is in the bust from half coverage on."""
    chosen = torch.zeros(n, n_tokens, dtype=torch.bool)
    if kind in ("all", "cls"):
        chosen[:, 0] = True
    if kind in ("all", "patches"):
        chosen[:, 1:] = True
    if kind in ("bust", "not_bust"):
        if bust is None:
            raise ValueError(f"scope {kind} needs the bust's patch coverage")
        inside = torch.from_numpy(bust.reshape(n, -1) >= INSIDE)
        chosen[:, 1:] = inside if kind == "bust" else ~inside
    return chosen


def matched_noise(x: Float[Tensor, "n token d_in"], sae: JumpReLUSAE, seed: list[int]) -> Float[Tensor, "n token d_in"]:
    """x plus, at each token, a random vector as long as the reconstruction error there."""
    noise = np.random.default_rng(seed).standard_normal(x.shape, dtype=np.float32)
    direction = torch.from_numpy(noise).to(x)
    return x + direction * ((x - sae(x)).norm(dim=-1, keepdim=True) / direction.norm(dim=-1, keepdim=True))


def matched_sets(
    chosen: Int[np.ndarray, " k"], profile: Float[np.ndarray, "latent feature"], n_sets: int, seed: int
) -> Int[np.ndarray, "n_sets k"]:
    """Control sets of other latents, alike in `profile` (such as firing rate and mean activation, on log scales).

    For each chosen latent a control is drawn among its nearest neighbours in the standardised profile,
    without using a latent twice in one set. Latents whose profile is not finite (never firing) are no controls.
    Raises ControlsError if there are too few others.
    """
    usable = np.isfinite(profile).all(1)
    centre, spread = profile[usable].mean(0), profile[usable].std(0)
    standard = (profile - centre) / np.where(spread > 0, spread, 1)
    others = np.setdiff1d(np.flatnonzero(usable), chosen)
    if len(others) < len(chosen):
        raise ControlsError(
            f"{len(others)} other latents ever fire, too few to draw control sets for {len(chosen)} chosen ones; lower "
            "edit.n_latents, or raise grid.expansions"
        )
    n_near = min(len(others), NEAREST_PER_LATENT * len(chosen))
    rng = np.random.default_rng(seed)
    distance = np.linalg.norm(standard[others][None] - standard[chosen][:, None], axis=-1)
    near = others[np.argsort(distance, axis=1, kind="stable")[:, :n_near]]
    return np.stack([_one_set(near, rng) for _ in range(n_sets)])


def _one_set(near: Int[np.ndarray, "k n_near"], rng: np.random.Generator) -> Int[np.ndarray, " k"]:
    taken: list[int] = []
    for row in near[rng.permutation(len(near))]:
        free = row[~np.isin(row, taken)]
        taken.append(int(rng.choice(free)))
    return np.array(taken, dtype=np.int64)


def control_p(effect: float, controls: Float[np.ndarray, " n"]) -> float:
    """(1 + number of controls at least as large) / (1 + number of controls): one-sided, larger is stronger."""
    return float((1 + (controls >= effect).sum()) / (1 + len(controls)))

"""Edits of latents in the residual stream, with the SAE's reconstruction error kept.

    edited(x) = x + D(f') - D(f)          f = encode(x), f' = the same with some latents changed

The reconstruction error x - D(f) stays where it is, so only the edit acts. With nothing edited the result equals x
exactly, because only the edited latents are encoded and decoded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stages.core import schema
from stages.core.run.labels import INSIDE
from stages.core.sae import JumpReLUSAE


@dataclass(frozen=True, kw_only=True)
class LatentEdit:
    """A change of the activations of some latents of one SAE.

    latents: indices of the latents.
    kind: what becomes of each activation:
        zero     set to 0
        mean     set to `means` (row 0 on the class token, row 1 on patches)
        scale    multiplied by `factor`: one number for all latents, or a number for each
        patch    set to the value at the same token of the twin (same woman and expression, other condition)
    """

    latents: Int[Tensor, " k"]
    kind: schema.EditKind = "zero"
    factor: float | Float[Tensor, " k"] = 0.0
    means: Float[Tensor, "2 k"] | None = None

    @classmethod
    def from_params(
        cls,
        edit: schema.Edit,
        latents: Int[np.ndarray, " k"],
        means: Float[np.ndarray, "2 d_sae"],
        device: torch.device,
    ) -> LatentEdit:
        """Build the edit that params.yaml describes, applied to `latents`.

        edit: the edit in params.yaml. Its kind and its factor are used.
        latents: indices of the latents to edit.
        means: mean activation of every latent of the SAE, on the class token (row 0) and on patches (row 1). The means
            are over discovery images: images of the women on whom the latents are chosen. An edit of kind `mean` sets
            the latents to these values.
        device: where the tensors of the edit are put.
        """
        chosen = torch.tensor(np.asarray(latents, dtype=np.int64), device=device)
        return cls(
            latents=chosen,
            kind=edit.kind,
            factor=edit.factor,
            means=torch.tensor(means, dtype=torch.float32, device=device)[:, chosen],
        )

    def to(self, device: torch.device) -> LatentEdit:
        """Return the same edit with its tensors on `device`."""
        means = None if self.means is None else self.means.to(device)
        factor = self.factor.to(device) if isinstance(self.factor, Tensor) else self.factor
        return replace(self, latents=self.latents.to(device), factor=factor, means=means)


def edited(
    x: Float[Tensor, "n token d_in"],
    sae: JumpReLUSAE,
    edit: LatentEdit,
    *,
    where: Bool[Tensor, "n token"] | None = None,
    twin: Float[Tensor, "n token d_in"] | None = None,
) -> Float[Tensor, "n token d_in"]:
    """Apply an edit to the residual stream, with the reconstruction error kept. Returns x + D(f') - D(f).

    D is the SAE's decoder, f the activations of the latents at x, and f' the same after the edit.

    x: tokens of the residual stream that the SAE reads. sae: the SAE.
    edit: the latents to edit, and what becomes of their activations.
    where: True for each token to edit; all tokens if not given.
    twin: tokens of the twin of each image (same woman and expression, other condition). Only an edit of kind `patch`
        needs the twin.
    Raises ValueError if an edit of kind `mean` has no means, or one of kind `patch` no twin.
    """
    f = sae.encode(x, edit.latents)
    change = _target(f, sae, edit, twin) - f
    if where is not None:
        change = change * where[..., None]
    return x + change @ sae.W_dec[edit.latents]


def _target(f: Tensor, sae: JumpReLUSAE, edit: LatentEdit, twin: Tensor | None) -> Tensor:
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


def tokens_in_scope(
    scope: schema.EditScope, n: int, n_tokens: int, bust: Float[np.ndarray, "n gh gw"] | None = None
) -> Bool[Tensor, "n token"]:
    """Mark the tokens that an edit changes, for `n` images with `n_tokens` tokens each. Token 0 is the class token.

    scope: `all`, `cls` (class token), `patches`, `bust` (patches inside the bust) or `not_bust` (patches outside).
    bust: share of each patch's area inside the bust mask, from 0 to 1, for gh rows and gw columns of patches. A patch
        is inside the bust if its share is at least one half. Only the scopes `bust` and `not_bust` need this argument.
    Returns True for each token to edit. Raises ValueError if `bust` is needed and not given.
    """
    chosen = torch.zeros(n, n_tokens, dtype=torch.bool)
    if scope in ("all", "cls"):
        chosen[:, 0] = True
    if scope in ("all", "patches"):
        chosen[:, 1:] = True
    if scope in ("bust", "not_bust"):
        if bust is None:
            raise ValueError(f"scope {scope} needs the bust's patch coverage")
        inside = torch.from_numpy(bust.reshape(n, -1) >= INSIDE)
        chosen[:, 1:] = inside if scope == "bust" else ~inside
    return chosen

"""Grad-ECLIP heatmaps (Zhao et al., ICML 2024), computed without changing the model.

For the attention of one block, with X its input (the output of ln_1), q, k, v the halves of in_proj(X),
y its output, and S = cosine(image, text):
    G = dS/dy at the class token                      gradient after out_proj
    g = G W_out                                       the same before out_proj, exact
    lambda_i = min-max over patches of cos(q_cls, k_i)
    raw_i = sum_c g_c v_ic lambda_i                   signed; the published map is its positive part

The model keeps its heads and its attention code: a pre-hook reads X, a forward hook makes y the start
of the gradient, so only what follows the attention is differentiated, once for each text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, linear, normalize


class ExplainError(ValueError):
    """A model that Grad-ECLIP cannot explain, with the reason."""


@dataclass(frozen=True)
class Explanation:
    """Maps of n images for k texts, float32."""

    raw: Float[Tensor, "n k gh gw"]
    """Signed, before the positive part is taken."""
    similarity: Float[Tensor, "n k"]
    """Cosine of image and text."""
    weights: Float[Tensor, "n gh gw"]
    """lambda: how alike each patch's key is to the class token's query, min-max scaled to [0, 1]."""


class _Attention:
    """What the hooks on one block's attention leave behind: its input x and output y, [n, token, width]."""

    x: Tensor
    y: Tensor


def grad_eclip(
    model: Any,
    images: Float[Tensor, "n 3 s s"],
    text_embeddings: Float[Tensor, "n width"] | Float[Tensor, "k n width"],
    *,
    layer: int | None = None,
) -> Float[Tensor, "n gh gw"] | Float[Tensor, "n k gh gw"]:
    """Raw signed Grad-ECLIP grids of `images` (normalised pixels), float32.

    text_embeddings: one unit-norm text per image [n, embed], or k texts for every image [k, n, embed]
        (then the grids are [n, k, gh, gw]).
    layer: the block to explain, counted from 1; the last one if not given.
    """
    several = text_embeddings.ndim == 3
    texts = text_embeddings if several else text_embeddings[None]
    raw = explain(model, images, texts, layer=layer).raw
    return raw if several else raw[:, 0]


def explain(
    model: Any, images: Float[Tensor, "n 3 s s"], texts: Float[Tensor, "k n embed"], *, layer: int | None = None
) -> Explanation:
    """Maps, cosines and lambda of every image for k texts of its own, from one forward pass.

    Image and single-image results agree because the images of a batch do not interact: the sum of
    their cosines is differentiated.
    """
    visual = model.visual
    block = _explained_block(visual, layer)
    with _frozen(model), _watching(block.attn, visual.transformer.batch_first) as seen, torch.enable_grad():
        embeddings = normalize(visual(images).float(), dim=-1)
        similarity = (embeddings[None] * texts).sum(-1)
        gradients = [
            torch.autograd.grad(one.sum(), seen.y, retain_graph=i < len(similarity) - 1)[0][:, 0]
            for i, one in enumerate(similarity)
        ]
    with torch.no_grad():
        raw, weights = _maps(block.attn, seen.x, torch.stack(gradients, 1))
    grid = tuple(visual.grid_size)
    return Explanation(
        raw.unflatten(-1, grid).float(), similarity.detach().T.float(), weights.unflatten(-1, grid).float()
    )


def _maps(attn: Any, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """raw [n, k, patch] and lambda [n, patch] from the attention's input [n, token, width] and G [n, k, width]."""
    q, k, v = linear(x, attn.in_proj_weight, attn.in_proj_bias).chunk(3, dim=-1)
    g = gradient @ attn.out_proj.weight
    alike = cosine_similarity(q[:, :1], k[:, 1:], dim=-1)
    low, high = alike.amin(-1, keepdim=True), alike.amax(-1, keepdim=True)
    weights = (alike - low) / (high - low).clamp_min(torch.finfo(alike.dtype).eps)
    return torch.einsum("nkc,npc->nkp", g, v[:, 1:]) * weights[:, None], weights


def _explained_block(visual: Any, layer: int | None) -> Any:
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None:
        raise ExplainError(f"{type(visual).__name__} has no transformer.resblocks; Grad-ECLIP needs a ViT")
    if getattr(visual, "attn_pool", None) is not None:
        raise ExplainError("the model pools by attention; its class token is not the embedding Grad-ECLIP explains")
    layer = len(blocks) if layer is None else layer
    if not 1 <= layer <= len(blocks):
        raise ExplainError(f"layer {layer} does not exist; the model has blocks 1 to {len(blocks)}")
    if getattr(blocks[layer - 1].attn, "in_proj_weight", None) is None:
        raise ExplainError(f"the attention of block {layer} has no in_proj_weight; its q, k and v cannot be read")
    return blocks[layer - 1]


@contextmanager
def _watching(attn: Any, batch_first: bool) -> Iterator[_Attention]:
    seen = _Attention()

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        x = args[0] if args else kwargs["query"]
        seen.x = (x if batch_first else x.transpose(0, 1)).detach()

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        y = output[0] if isinstance(output, tuple) else output
        y = y if y.requires_grad else y.detach().requires_grad_()
        seen.y = y if batch_first else y.transpose(0, 1)
        passed_on = seen.y if batch_first else seen.y.transpose(0, 1)
        return (passed_on, *output[1:]) if isinstance(output, tuple) else passed_on

    handles = [attn.register_forward_pre_hook(before, with_kwargs=True), attn.register_forward_hook(after)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """No parameter takes part in the gradient; every requires_grad is put back afterwards."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)

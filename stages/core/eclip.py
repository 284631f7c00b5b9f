"""Heatmaps of CLIP's class token: Grad-ECLIP (Zhao et al., ICML 2024) and related maps, without changing the model.

For the attention of one block, X is the input (the output of ln_1), q, k, v are the thirds of in_proj(X), A is the
attention of the class token (a row for each head h), y is the output, a_cls is the class token's output before
out_proj, and S = cosine(image, text):
    G = dS/dy at the class token                      gradient after out_proj
    g = G W_out                                       the same before out_proj, exact
    lambda_i = min-max over patches of cos(q_cls, k_i)

    grad_eclip       sum_c g_c v_ic lambda_i          signed; the published map is its positive part
    attribution      sum_h A_hi sum_{c in h} g_c v_ic  exact: over all tokens it adds up to g . a_cls
    legrad           mean_h max(0, sum_{c in h} g_c v_ic)     dS/dA, positive part (Bousselham et al. 2024, 2404.03214)
    attention        mean_h A_hi                      the same for every text: a baseline

Maps of several blocks are added up. S is linear in the text, so a difference of text embeddings gives the map of a
contrast. A text may depend on the embedding of the image: with the text dR/de (`Readout.slope`), dS is dR, and the maps
are those of the emotion readout R, in nats. The model keeps its heads and its attention code. A pre-hook reads X, and a
forward hook makes y the start of the gradient. So only the part after the attention is differentiated, once for each
text. After the last attention only the class token reaches the embedding, so the gradient of the MLP is taken for the
class token alone, and further texts cost little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, linear, normalize

from stages.core.run.errors import StudyError

UNEXPLAINED = {  # options of open_clip's own attention that the formulas do not cover
    "ln_q": "a norm of its queries",
    "ln_k": "a norm of its keys",
    "ln_inner": "a norm before its output projection",
    "logit_scale": "scaled cosines for logits",
    "head_scale": "scaled heads",
}
Method = Literal["grad_eclip", "attribution", "legrad", "attention"]


class ExplainError(StudyError):
    """A model that the maps cannot explain. The message names the reason."""


@dataclass(frozen=True)
class Explanation:
    """Maps of n images for k texts, and the cosines that they explain, float32.

    A map has a value per patch. Patches lie in gh rows and gw columns.
    """

    raw: dict[Method, Float[Tensor, "n k gh gw"]]
    """Maps by method, summed over the explained blocks. `grad_eclip` and `attribution` have positive and negative
    values, the others no negative ones."""
    similarity: Float[Tensor, "n k"]
    """Cosine of each image with each text; for a text that is no unit vector, the dot product."""


class _AttentionRecord:
    """Input x and output y of one block's attention, [n, token, width], as the hooks on it record them."""

    x: Tensor
    y: Tensor


def grad_eclip(
    model: Any,
    images: Float[Tensor, "n 3 s s"],
    text_embeddings: Float[Tensor, "n width"] | Float[Tensor, "k n width"],
    *,
    layer: int | None = None,
) -> Float[Tensor, "n gh gw"] | Float[Tensor, "n k gh gw"]:
    """Compute signed Grad-ECLIP maps (Zhao et al., ICML 2024) of images.

    A map shows which patches the cosine of image and text rests on. The map in the paper is the positive part.

    model: an open_clip model whose vision tower is a ViT.
    images: normalised pixels.
    text_embeddings: unit-norm text embeddings: one text per image [n, width], or k texts per image [k, n, width].
    layer: the block to explain, counted from 1; the last one if not given.
    Returns maps of gh rows and gw columns of patches, float32: [n, gh, gw] for one text per image, [n, k, gh, gw] for k
    texts per image.
    Raises ExplainError for a model or a block to which the formulas do not apply.
    """
    several = text_embeddings.ndim == 3
    texts = text_embeddings if several else text_embeddings[None]
    raw = explain(model, images, texts, layers=None if layer is None else [layer]).raw["grad_eclip"]
    return raw if several else raw[:, 0]


def explain(
    model: Any,
    images: Float[Tensor, "n 3 s s"],
    texts: Float[Tensor, "k n embed"] | Callable[[Float[Tensor, "n embed"]], Float[Tensor, "k n embed"]],
    *,
    methods: Sequence[Method] = ("grad_eclip",),
    layers: Sequence[int] | None = None,
    single_head: bool = False,
) -> Explanation:
    """Compute maps and cosines of every image for k texts of its own, from one forward pass.

    model: an open_clip model whose vision tower is a ViT.
    images: normalised pixels.
    texts: k text embeddings per image, unit-norm. A difference of two embeddings explains a difference of two cosines.
        Or a function that gives the texts, once the unit-norm embeddings of the images are known. They count as
        constant: the gradient does not pass through the texts.
    methods: the maps to compute: `grad_eclip`, `attribution`, `legrad` or `attention` (formulas: module docstring).
    layers: the blocks to explain, counted from 1; the last one if not given. Maps of several blocks are added up.
    single_head: run the explained blocks with one attention head, as the code of the Grad-ECLIP paper does. This
        changes the model, and so the cosines.
    Results do not depend on the batch: the images of a batch do not interact.
    Returns the maps [n, k, gh, gw] by method (gh rows and gw columns of patches), and the cosines [n, k].
    Raises ExplainError for a model or a block to which the formulas do not apply.
    """
    visual = model.visual
    blocks = [_explained_block(visual, layer) for layer in ([None] if layers is None else layers)]
    with ExitStack() as stack:
        stack.enter_context(_frozen(model))
        stack.enter_context(torch.enable_grad())
        if single_head:
            for block in blocks:
                stack.enter_context(_one_head(block.attn))
        if blocks == [visual.transformer.resblocks[-1]]:
            stack.enter_context(_class_token_only(blocks[0].mlp, visual.transformer.batch_first))
        seen = [stack.enter_context(_watching(block.attn, visual.transformer.batch_first)) for block in blocks]
        embeddings = normalize(visual(images).float(), dim=-1)
        chosen = texts(embeddings.detach()) if callable(texts) else texts
        similarity = (embeddings[None] * chosen).sum(-1)
        outputs = [record.y for record in seen]
        gradients = [
            torch.autograd.grad(cosines.sum(), outputs, retain_graph=i < len(similarity) - 1)
            for i, cosines in enumerate(similarity)
        ]
        with torch.no_grad():
            raw: dict[Method, Tensor] = dict.fromkeys(methods, torch.zeros(()))
            for block, record, block_gradients in zip(blocks, seen, zip(*gradients, strict=True), strict=True):
                G = torch.stack([gradient[:, 0] for gradient in block_gradients], 1)
                for method in methods:
                    raw[method] = raw[method] + maps(block.attn, record.x, G, method)
    grid = tuple(visual.grid_size)
    return Explanation(
        {method: grids.unflatten(-1, grid).float() for method, grids in raw.items()}, similarity.detach().T.float()
    )


def maps(
    attn: Any, x: Float[Tensor, "n token width"], gradient: Float[Tensor, "n k width"], method: Method
) -> Float[Tensor, "n k patch"]:
    """Compute the maps of one block by one method, for n images and k texts. The module docstring has the formulas.

    attn: the attention module of the block.
    x: input of the attention module, the output of ln_1.
    gradient: G = dS/dy at the class token, for each image and text. S is the cosine of image and text, y the output of
        the attention module.
    method: `grad_eclip`, `attribution`, `legrad` or `attention`. Maps of the first two have positive and negative
        values, maps of the others no negative ones.
    Returns a value per patch. The class token is left out.
    """
    q, k, v = linear(x, attn.in_proj_weight, attn.in_proj_bias).chunk(3, dim=-1)
    g = gradient @ attn.out_proj.weight
    if method == "grad_eclip":
        return torch.einsum("nkc,npc->nkp", g, v[:, 1:]) * key_query_similarity(q, k)[:, None]
    by_head = torch.einsum("nkhc,nphc->nkhp", _heads(g, attn), _heads(v[:, 1:], attn))  # dS/dA
    if method == "legrad":
        return by_head.clamp_min(0).mean(2)
    logits = torch.einsum("nhc,nthc->nht", _heads(q[:, 0], attn), _heads(k, attn)) * attn.head_dim**-0.5
    attention = logits.softmax(-1)[:, None, :, 1:]  # [n, 1, head, patch]
    if method == "attribution":
        return (attention * by_head).sum(2)
    return attention.mean(2).expand(-1, gradient.shape[1], -1)


def key_query_similarity(
    q: Float[Tensor, "n token width"], k: Float[Tensor, "n token width"]
) -> Float[Tensor, "n patch"]:
    """Compute Grad-ECLIP's factor lambda: the cosine of each patch's key with the class token's query.

    In each image, the cosines are scaled so that the smallest becomes 0 and the largest becomes 1.

    q, k: queries and keys of all tokens of n images. The class token is the first token.
    """
    cosines = cosine_similarity(q[:, :1], k[:, 1:], dim=-1)
    low, high = cosines.amin(-1, keepdim=True), cosines.amax(-1, keepdim=True)
    return (cosines - low) / (high - low).clamp_min(torch.finfo(cosines.dtype).eps)


def _heads(values: Tensor, attn: Any) -> Tensor:
    return values.unflatten(-1, (attn.num_heads, -1))


def _explained_block(visual: Any, layer: int | None) -> Any:
    """Block `layer`, counted from 1; the last one for None. Raises ExplainError if the formulas do not apply to it."""
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None:
        raise ExplainError(f"{type(visual).__name__} has no transformer.resblocks; Grad-ECLIP needs a ViT")
    if getattr(visual, "attn_pool", None) is not None or getattr(visual, "pool_type", "tok") != "tok":
        raise ExplainError("the model pools its tokens; its class token is not the embedding Grad-ECLIP explains")
    layer = len(blocks) if layer is None else layer
    if not 1 <= layer <= len(blocks):
        raise ExplainError(f"layer {layer} does not exist; the model has blocks 1 to {len(blocks)}")
    attn = blocks[layer - 1].attn
    if getattr(attn, "in_proj_weight", None) is None:
        raise ExplainError(f"the attention of block {layer} has no in_proj_weight; its q, k and v cannot be read")
    for name, what in UNEXPLAINED.items():
        if not isinstance(getattr(attn, name, None), nn.Identity | None):
            raise ExplainError(f"the attention of block {layer} has {what}, which the formulas do not know")
    return blocks[layer - 1]


@contextmanager
def _one_head(attn: Any) -> Iterator[None]:
    """While open, the attention has one head of the full width."""
    heads, width = attn.num_heads, attn.head_dim
    attn.num_heads, attn.head_dim = 1, heads * width
    try:
        yield
    finally:
        attn.num_heads, attn.head_dim = heads, width


@contextmanager
def _watching(attn: Any, batch_first: bool) -> Iterator[_AttentionRecord]:
    """While open, a forward pass records x and y of `attn`. The gradient starts at y of the first explained block."""
    seen = _AttentionRecord()

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        x = args[0] if args else kwargs["query"]
        seen.x = (x if batch_first else x.transpose(0, 1)).detach()

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        y = output[0] if isinstance(output, tuple) else output
        y = y if y.requires_grad else y.detach().requires_grad_()
        seen.y = y if batch_first else y.transpose(0, 1)
        passed_on = seen.y if batch_first else seen.y.transpose(0, 1)
        return (passed_on, *output[1:]) if isinstance(output, tuple) else passed_on

    with attn.register_forward_pre_hook(before, with_kwargs=True), attn.register_forward_hook(after):
        yield seen


@contextmanager
def _class_token_only(mlp: nn.Module, batch_first: bool) -> Iterator[None]:
    """While open, only the class token has a gradient through this MLP. The output of the MLP stays the same."""
    axis, given = (1 if batch_first else 0), []

    def before(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        given.append(args[0].narrow(axis, 0, 1))
        return (args[0].detach(),)

    def after(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        return torch.cat([module.forward(given.pop()), output.narrow(axis, 1, output.shape[axis] - 1)], axis)

    with mlp.register_forward_pre_hook(before), mlp.register_forward_hook(after):
        yield


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """While open, no parameter requires a gradient. Afterwards each `requires_grad` is as before."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)

"""Grad-ECLIP against an explicit multi-head computation, in float64."""

from __future__ import annotations

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CLIPVisionCfg, _build_vision_tower
from torch.nn.functional import cosine_similarity, normalize

from stages.core import eclip
from stages.core.planted import demo
from stages.core.run import params
from stages.core.schema import Demo
from tests.imports import ROOT


def explicit(model, images, texts):
    """The formulas, attention written out head by head and dS/dA by autograd: maps, cosines, both sides of the
    completeness."""
    visual = model.visual
    with torch.no_grad():  # only the last block is explained
        x = visual._embeds(images)
        for block in visual.transformer.resblocks[:-1]:
            x = block(x)
    block = visual.transformer.resblocks[-1]
    attn = block.attn
    normed = block.ln_1(x)
    q, k, v = (normed @ attn.in_proj_weight.T + attn.in_proj_bias).chunk(3, -1)
    heads = attn.num_heads
    split = lambda t: t.unflatten(-1, (heads, -1)).transpose(1, 2)  # noqa: E731
    weights = (split(q) @ split(k).transpose(-1, -2) / split(q).shape[-1] ** 0.5).softmax(-1).detach().requires_grad_()
    a = (weights @ split(v)).transpose(1, 2).flatten(2)
    y = a @ attn.out_proj.weight.T + attn.out_proj.bias
    y.retain_grad()
    after = x.detach() + y
    after = after + block.mlp(block.ln_2(after))
    pooled, _ = visual._pool(after)
    similarity = (normalize(pooled @ visual.proj, dim=-1) * texts).sum(-1)
    similarity.sum().backward()
    g = y.grad[:, 0] @ attn.out_proj.weight
    alike = cosine_similarity(q[:, :1], k[:, 1:], dim=-1)
    low, high = alike.min(-1, keepdim=True).values, alike.max(-1, keepdim=True).values
    per_head = (weights[:, :, 0, :, None] * split(v)).transpose(1, 2).flatten(2)  # attention-weighted v, [n, token, c]
    by_token = (per_head * g[:, None]).sum(-1)
    maps = {
        "grad_eclip": (g[:, None] * v[:, 1:]).sum(-1) * (alike - low) / (high - low),
        "attribution": by_token[:, 1:],
        "legrad": weights.grad[:, :, 0, 1:].relu().mean(1),
        "attention": weights[:, :, 0, 1:].mean(1),
    }
    return {name: grid.detach() for name, grid in maps.items()}, similarity, by_token.sum(1), (g * a[:, 0]).sum(-1)


@pytest.fixture
def double(tiny_clip):
    model = tiny_clip.model.double()
    images = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    texts = normalize(torch.randn(5, 16, dtype=torch.float64), dim=-1)
    return model, images, texts


@pytest.fixture
def vit_l_14():
    """The vision tower of the published study's architecture, randomly initialised, one image and one text."""
    config = open_clip.get_model_config("ViT-L-14")
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.visual = _build_vision_tower(config["embed_dim"], CLIPVisionCfg(**config["vision_cfg"]), quick_gelu=True)
    images = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    return model.double().eval(), images, normalize(torch.randn(1, 768, dtype=torch.float64), dim=-1)


@pytest.fixture
def demo_model():
    """The demo CLIP as it is before training, at its default size."""
    model = CLIP(**demo.architecture(params.load(Demo, fpath=ROOT / "params.yaml"), 64))
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    return model.double().eval(), images, normalize(torch.randn(4, 128, dtype=torch.float64), dim=-1)


METHODS = ("grad_eclip", "attribution", "legrad", "attention")


@pytest.mark.parametrize("size", ["double", "demo_model", pytest.param("vit_l_14", marks=pytest.mark.slow)])
def test_maps_equal_the_explicit_computation(request, size):
    model, images, texts = request.getfixturevalue(size)
    expected, similarity, _, _ = explicit(model, images, texts)
    block = model.visual.transformer.resblocks[-1]
    attn, narrowed = block.attn, eclip._class_token_only(block.mlp, True)
    with eclip._frozen(model), narrowed, eclip._watching(attn, True) as seen, torch.enable_grad():
        embedded = normalize(model.visual(images), dim=-1)
        gradient = torch.autograd.grad((embedded * texts).sum(), seen.y)[0][:, :1]
    public = eclip.explain(model, images, texts[None], methods=METHODS)
    assert torch.allclose(public.similarity[:, 0], similarity.float(), atol=1e-6)
    for method in METHODS:
        found = eclip.maps(attn, seen.x, gradient, method)[:, 0]
        assert (found - expected[method]).abs().max() / expected[method].abs().max() < 1e-9, method
        assert torch.allclose(public.raw[method][:, 0].flatten(1), expected[method].float(), rtol=1e-4, atol=1e-9)


def test_attention_weighted_v_times_g_adds_up_to_g_times_output(double):
    model, images, texts = double
    _, _, over_keys, at_cls = explicit(model, images, texts)
    assert torch.allclose(over_keys, at_cls, rtol=1e-10)


def test_batch_equals_single(tiny_clip):
    images, texts = torch.randn(6, 3, 32, 32), normalize(torch.randn(6, 16), dim=-1)
    together = eclip.grad_eclip(tiny_clip.model, images, texts)
    alone = torch.cat([eclip.grad_eclip(tiny_clip.model, images[i : i + 1], texts[i : i + 1]) for i in range(6)])
    assert (together - alone).abs().max() / alone.abs().max() < 1e-5


def test_several_texts_share_one_forward_pass(tiny_clip):
    images, texts = torch.randn(4, 3, 32, 32), normalize(torch.randn(3, 4, 16), dim=-1)
    passes = []
    handle = tiny_clip.visual.conv1.register_forward_hook(lambda *_: passes.append(1))
    several = eclip.grad_eclip(tiny_clip.model, images, texts)
    handle.remove()
    assert len(passes) == 1
    assert several.shape == (4, 3, 4, 4)
    for k in range(3):
        one = eclip.grad_eclip(tiny_clip.model, images, texts[k])
        assert torch.allclose(several[:, k], one, atol=1e-6)


def test_the_model_is_left_as_it_was(tiny_clip):
    model = tiny_clip.model.requires_grad_(True)
    images, texts = torch.randn(2, 3, 32, 32), normalize(torch.randn(2, 16), dim=-1)
    before = model.visual(images)
    eclip.grad_eclip(model, images, texts)
    assert torch.equal(model.visual(images), before)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    attn = model.visual.transformer.resblocks[-1].attn
    assert not attn._forward_hooks and not attn._forward_pre_hooks


def test_attention_that_returns_a_tensor(tiny_clip):
    """The attention of some open_clip versions gives no tuple."""

    class Bare(torch.nn.MultiheadAttention):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)[0]

    block = tiny_clip.visual.transformer.resblocks[-1]
    images, texts = torch.randn(2, 3, 32, 32), normalize(torch.randn(2, 16), dim=-1)
    expected = eclip.grad_eclip(tiny_clip.model, images, texts)
    block.attn.__class__ = Bare
    block.attention = lambda q_x, k_x=None, v_x=None, attn_mask=None: block.attn(q_x, q_x, q_x, need_weights=False)
    assert torch.allclose(eclip.grad_eclip(tiny_clip.model, images, texts), expected, atol=1e-6)


def test_maps_of_several_blocks_add_up(tiny_clip):
    images, texts = torch.randn(2, 3, 32, 32), normalize(torch.randn(1, 2, 16), dim=-1)
    both = eclip.explain(tiny_clip.model, images, texts, layers=[2, 3]).raw["grad_eclip"]
    alone = [eclip.explain(tiny_clip.model, images, texts, layers=[layer]).raw["grad_eclip"] for layer in (2, 3)]
    assert torch.allclose(both, alone[0] + alone[1], atol=1e-6)


def test_the_map_of_a_contrast_is_the_contrast_of_maps(tiny_clip):
    """For the methods without a positive part: S is linear in the text."""
    images, (one, other) = torch.randn(3, 3, 32, 32), normalize(torch.randn(2, 3, 16), dim=-1)
    for method in ("grad_eclip", "attribution"):
        texts = torch.stack([one, other, one - other])
        raw = eclip.explain(tiny_clip.model, images, texts, methods=[method]).raw[method]
        assert torch.allclose(raw[:, 0] - raw[:, 1], raw[:, 2], atol=1e-6)


def test_one_head_as_in_the_published_code_is_another_model_and_leaves_this_one_alone(tiny_clip):
    images, texts = torch.randn(3, 3, 32, 32), normalize(torch.randn(1, 3, 16), dim=-1)
    ours = eclip.explain(tiny_clip.model, images, texts)
    theirs = eclip.explain(tiny_clip.model, images, texts, single_head=True)
    attn = tiny_clip.visual.transformer.resblocks[-1].attn
    assert (attn.num_heads, attn.head_dim) == (2, 16)
    assert (ours.similarity - theirs.similarity).abs().max() > 1e-4
    assert torch.equal(eclip.explain(tiny_clip.model, images, texts).similarity, ours.similarity)
    attn.num_heads, attn.head_dim = 1, 32  # the model they run
    expected = eclip.explain(tiny_clip.model, images, texts)
    assert torch.allclose(theirs.raw["grad_eclip"], expected.raw["grad_eclip"], atol=1e-6)
    assert torch.allclose(theirs.similarity, expected.similarity, atol=1e-6)


def test_earlier_blocks_can_be_explained(tiny_clip):
    images, texts = torch.randn(2, 3, 32, 32), normalize(torch.randn(2, 16), dim=-1)
    assert eclip.grad_eclip(tiny_clip.model, images, texts, layer=1).shape == (2, 4, 4)
    with pytest.raises(eclip.ExplainError, match="blocks 1 to 3"):
        eclip.grad_eclip(tiny_clip.model, images, texts, layer=4)


def test_models_that_cannot_be_explained_are_refused(tiny_clip):
    images, texts = torch.randn(1, 3, 32, 32), torch.randn(1, 16)
    attn = tiny_clip.visual.transformer.resblocks[-1].attn
    attn.ln_q = torch.nn.LayerNorm(16)
    with pytest.raises(eclip.ExplainError, match="a norm of its queries"):
        eclip.grad_eclip(tiny_clip.model, images, texts)
    tiny_clip.visual.pool_type = "avg"
    with pytest.raises(eclip.ExplainError, match="pools its tokens"):
        eclip.explain(tiny_clip.model, torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 16))
    tiny_clip.visual.pool_type, tiny_clip.visual.attn_pool = "tok", torch.nn.Identity()
    with pytest.raises(eclip.ExplainError, match="pools its tokens"):
        eclip.grad_eclip(tiny_clip.model, images, texts)
    tiny_clip.model.visual = torch.nn.Identity()
    with pytest.raises(eclip.ExplainError, match="no transformer"):
        eclip.grad_eclip(tiny_clip.model, images, texts)

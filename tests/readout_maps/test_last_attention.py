"""Maps of R through the last attention: dR/dA of R itself, by autograd, with the attention written out."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import normalize

from stages.core import eclip
from stages.core.readout_maps.last_attention import last_attention_maps

ROWS = np.arange(2, 9)


def test_the_slope_is_the_derivative_of_R(spliced):
    embeddings, truth = normalize(torch.randn(5, 16), dim=-1).requires_grad_(), torch.tensor([0, 1, 1, 0, 1])
    (expected,) = torch.autograd.grad(spliced.readout.score(embeddings, truth).sum(), embeddings)
    assert torch.allclose(spliced.readout.slope(embeddings.detach(), truth), expected, atol=1e-5)


def test_attribution_is_the_attention_times_its_slope_in_R(spliced):
    """A . dR/dA at the class token, summed over heads. Without the class token's own part it is the map."""
    visual, readout, truth = spliced.clip.visual, spliced.readout, spliced.truth(ROWS)
    block = visual.transformer.resblocks[-1]
    attn = block.attn
    with torch.no_grad():
        x = visual._embeds(spliced.clip.pixels(spliced.data.images(ROWS)))
        for earlier in visual.transformer.resblocks[:-1]:
            x = earlier(x)
        q, k, v = (block.ln_1(x) @ attn.in_proj_weight.T + attn.in_proj_bias).unflatten(-1, (3, 2, 16)).unbind(2)
    A = (torch.einsum("nqhc,nkhc->nhqk", q, k) / 4).softmax(-1).requires_grad_()
    y = torch.einsum("nhqk,nkhc->nqhc", A, v).flatten(2) @ attn.out_proj.weight.T + attn.out_proj.bias
    x = x + y
    x = x + block.mlp(block.ln_2(x))
    R = readout.score(normalize(visual.ln_post(x)[:, 0] @ visual.proj, dim=-1), truth)
    (slope,) = torch.autograd.grad(R.sum(), A)
    expected = (A * slope)[:, :, 0, 1:].sum(1).unflatten(1, (4, 4)).detach()
    found = torch.from_numpy(last_attention_maps(spliced, ROWS)["attribution"])
    assert (found - expected).abs().max() / expected.abs().max() < 1e-4


def test_a_map_of_R_is_the_weighted_sum_of_the_maps_of_all_prompts(spliced):
    """dR = sum over emotions of (1 for the true one - its probability) * scale * dS."""
    pixels, truth = spliced.clip.pixels(spliced.data.images(ROWS)), spliced.truth(ROWS)
    texts = spliced.readout.prompts[:, None].expand(-1, len(ROWS), -1)
    alone = eclip.explain(spliced.clip.model, pixels, texts).raw["grad_eclip"]  # [n, emotion, gh, gw]
    probability = spliced.readout.log_probabilities(spliced.clip.embed(pixels)).exp()
    weight = spliced.readout.scale * (torch.nn.functional.one_hot(truth, 2) - probability)
    expected = (weight[:, :, None, None] * alone).sum(1).detach()
    found = torch.from_numpy(last_attention_maps(spliced, ROWS)["grad_eclip"])
    assert (found - expected).abs().max() / expected.abs().max() < 1e-4

"""The residual stream: layers count from one, and the tail continues the forward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.core.clip import vit


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_the_tail_continues_the_forward_pass(tiny_clip, data, layer):
    pixels = tiny_clip.pixels(data.images(slice(0, 4)))
    embeddings, kept = tiny_clip.residuals(pixels, [layer])
    assert torch.allclose(tiny_clip.tail(kept[layer], layer), embeddings, atol=1e-6)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_the_head_ends_where_the_tail_begins(tiny_clip, data, layer):
    pixels = tiny_clip.pixels(data.images(slice(0, 4)))
    _, kept = tiny_clip.residuals(pixels, [layer])
    assert torch.allclose(tiny_clip.head(pixels, layer), kept[layer], atol=1e-6)


def test_layers_count_from_one(tiny_clip, data):
    pixels = tiny_clip.pixels(data.images(slice(0, 2)))
    _, kept = tiny_clip.residuals(pixels, [1, 3])
    x = tiny_clip.visual._embeds(pixels)
    x = tiny_clip.visual.transformer.resblocks[0](x)
    assert torch.allclose(kept[1], x, atol=1e-6)
    for layer in (0, 4):
        with pytest.raises(vit.ModelError, match="blocks 1 to 3"):
            tiny_clip.check_layer(layer)


def test_another_resolution_is_refused(tiny_clip):
    with pytest.raises(vit.ModelError, match="set ingest"):
        tiny_clip.pixels(np.zeros((1, 48, 48, 3), np.uint8))

"""The randomisation cascade leaves no parameter as it was, and the model alone."""

from __future__ import annotations

import torch

from stages.core.checks import randomisation


def test_every_parameter_is_in_one_part(tiny_clip):
    groups = randomisation.parameter_groups(tiny_clip.visual)
    found = [id(parameter) for _, parameters in groups for parameter in parameters]
    assert sorted(found) == sorted(id(parameter) for parameter in tiny_clip.visual.parameters())


def test_parts_are_randomised_from_the_top_down_in_a_copy(tiny_clip):
    torch.nn.init.normal_(tiny_clip.visual.ln_pre.bias)  # no two parameters are constant
    before = {name: parameter.clone() for name, parameter in tiny_clip.visual.named_parameters()}
    steps = []
    for name, model in randomisation.randomised(tiny_clip.model, seed=0):
        now = dict(model.visual.named_parameters())
        steps.append((name, {key for key in before if not torch.equal(now[key], before[key])}))
    assert [name for name, _ in steps] == ["projection", "block 3", "block 2", "block 1", "embeddings"]
    assert "proj" in steps[0][1] and not any(key.startswith("transformer") for key in steps[0][1])
    assert "transformer.resblocks.2.attn.in_proj_weight" in steps[1][1]
    varied = {key for key, value in before.items() if value.numel() > 1 and value.std() > 0}
    assert {"class_embedding", "positional_embedding", "conv1.weight"} <= varied <= steps[-1][1]
    assert all(torch.equal(value, before[name]) for name, value in tiny_clip.visual.named_parameters())

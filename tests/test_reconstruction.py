"""Pictures come back from what stays, and not from what is shared. Small: the sizes are in the bench."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.core.sae import JumpReLUSAE
from tests.bench.reconstruction import (
    ON_LATENTS,
    World,
    attacks,
    blind,
    gain,
    known,
    make_world,
    of_rows,
    part_of,
    ridge,
    trained_on,
    wide_clip,
)

pytestmark = pytest.mark.slow
LAYER, N_WOMEN = 2, 6
CLIP = wide_clip(width=128, layers=LAYER, side=32, patch=8)
MOST = 0.02  # R2


@pytest.fixture(scope="module")
def made() -> World:
    torch.set_num_threads(2)
    return make_world(CLIP, LAYER, n_women=N_WOMEN, n_public=150)


@pytest.fixture(scope="module")
def saes(made) -> list[JumpReLUSAE]:
    """Small and trained for long: each sees the tokens of its 24 images 75 times."""
    return [trained_on(half, d_sae=256, steps=120, batch=256) for half in made.halves]


def test_ridge_finds_a_linear_map_with_few_and_with_many_rows():
    rng = torch.Generator().manual_seed(0)
    weights = torch.randn(30, 4, generator=rng)
    for n in (200, 40):
        x = torch.randn(n, 30, generator=rng)
        assert torch.allclose(ridge(x, x @ weights + 3)(x), x @ weights + 3, atol=1e-2)
    noise = torch.randn(200, 4, generator=rng)
    assert ridge(torch.randn(200, 30, generator=rng), noise)(torch.zeros(1, 30)).abs().max() < 0.5


def test_pictures_come_back_from_each_row_per_image(made, saes):
    found = of_rows(made, saes[0])
    r2, matched = found["activations"]
    assert r2 > 0.95 and matched == 1
    r2, matched = found["pooled latents"]
    assert r2 > 0.2 and matched > 0.5
    _, matched = found["4 images named per latent"]
    assert matched > 0.5, "names are not needed to tell whose the lists are"


def test_a_shared_mean_gives_one_picture_no_better_than_the_mean_picture(made, saes):
    for sae, half in zip(saes, made.halves, strict=True):
        assert all(r2 <= MOST for r2 in blind(made.attacker, sae, half).values())


def test_no_attack_gives_better_pictures_of_the_images_an_sae_was_trained_on(made, saes):
    chance = 0.5 + 2 * 0.5 / np.sqrt(2 * len(made.halves[0]))
    for name, attack in attacks(made.attacker, CLIP, LAYER).items():
        for n_latents in (256, 20) if name in ON_LATENTS else (256,):
            found = gain(attack, [part_of(sae, n_latents) for sae in saes], made.halves)
            assert found.gain - found.error <= MOST, (name, n_latents, found)
            assert found.told <= chance + 0.1, (name, n_latents, found)


def test_an_sae_that_is_one_image_is_caught(made, saes):
    """The measure sees a leak where there is one: latents that are class tokens of the images."""
    leaking = []
    for sae, half in zip(saes, made.halves, strict=True):
        other = JumpReLUSAE(sae.d_in, len(half))
        other.W_dec.data = half.tokens[:, 0] - made.attacker.own.tokens[:, 0].mean(0)
        leaking.append(other)
    found = gain(attacks(made.attacker, CLIP, LAYER)["a latent as a class token"], leaking, made.halves)
    assert found.gain > 0.1 and found.told > 0.9


def test_what_the_page_says_is_not_prevented_is_so(made, saes):
    """Who has a photograph can tell whether a small SAE was trained on it."""
    seen, strangers = made.halves[0].tokens, made.others[1].tokens
    assert known(made.attacker, saes[0], seen, strangers) > 0.8

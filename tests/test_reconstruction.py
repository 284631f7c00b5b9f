"""Pictures come back from what stays, and not from what is shared. Small: the sizes are in the bench."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.core.sae import JumpReLUSAE
from tests.bench.attacks import ON_LATENTS, SEARCH, attacks, ridge
from tests.bench.reconstruction import (
    World,
    blind,
    gain,
    make_world,
    of_rows,
    part_of,
    told_apart,
    trained_on,
    wide_clip,
)

pytestmark = pytest.mark.slow
LAYER, D_SAE, N_MANY = 2, 256, 40
CLIP = wide_clip(width=128, layers=LAYER, side=32, patch=8)
MOST = 0.02  # R2
Study = tuple[World, list[JumpReLUSAE]]


def study(n_women: int, steps: int) -> Study:
    """Two halves of a study, and an SAE trained on each."""
    torch.set_num_threads(1)  # the products are small; threads that wait for one another take longer
    made = make_world(CLIP, LAYER, n_women, n_public=150)
    return made, [trained_on(half, D_SAE, steps, batch=256) for half in made.halves]


@pytest.fixture(scope="module")
def many() -> Study:
    """160 images in each half."""
    return study(N_MANY, 250)


@pytest.fixture(scope="module")
def few() -> Study:
    """6 women, 24 images; each token is seen 75 times."""
    return study(6, 120)


def test_ridge_finds_a_linear_map_with_few_and_with_many_rows():
    rng = torch.Generator().manual_seed(0)
    weights = torch.randn(30, 4, generator=rng)
    for n in (200, 40):
        x = torch.randn(n, 30, generator=rng)
        assert torch.allclose(ridge(x, x @ weights + 3)(x), x @ weights + 3, atol=1e-2)
    noise = torch.randn(200, 4, generator=rng)
    assert ridge(torch.randn(200, 30, generator=rng), noise)(torch.zeros(1, 30)).abs().max() < 0.5


def test_pictures_come_back_from_each_row_per_image(many):
    made, saes = many
    found = of_rows(made, saes[0])
    r2, matched = found["activations"]
    assert r2 > 0.8 and matched == 1
    r2, matched = found["pooled latents"]
    assert r2 > 0.4 and matched > 0.9
    r2, matched = found["4 images named per latent"]
    assert r2 > 0.2 and matched > 0.5, "names are not needed to tell whose the lists are"


def test_a_shared_mean_gives_no_more_than_a_mean_over_women(many):
    """The mean of n women lies 1 / n of the variance between women from the mean of all. Twice that is allowed."""
    made, saes = many
    for sae, half in zip(saes, made.halves, strict=True):
        assert max(blind(made.attacker, sae, half).values()) <= 2 / N_MANY


def test_no_attack_gives_better_pictures_of_the_images_an_sae_was_trained_on(many):
    made, saes = many
    by_chance = 0.5 / np.sqrt(2 * len(made.halves[0]))
    for name, attack in attacks(made.attacker, CLIP, LAYER).items():
        for n_latents in (D_SAE, 20) if name in ON_LATENTS else (D_SAE,):
            found = gain(attack, [part_of(sae, n_latents) for sae in saes], made.halves)
            assert found.gain - found.error <= MOST, (name, n_latents, found)
            if name != SEARCH:  # it tells the halves apart a little, with pictures that are worse than the mean picture
                assert found.told <= 0.5 + 4 * by_chance, (name, n_latents, found)
            else:
                assert found.trained < 0, found


def test_an_sae_of_few_women_gives_patches_back_so_it_is_not_shared(few):
    made, saes = few
    found = gain(attacks(made.attacker, CLIP, LAYER)["latents as patches"], saes, made.halves)
    assert found.gain - found.error > MOST and found.told > 0.7


def test_an_sae_that_is_one_image_is_caught(few):
    """The measure sees a leak where there is one: latents that are class tokens of the images."""
    made, saes = few
    leaking = []
    for sae, half in zip(saes, made.halves, strict=True):
        other = JumpReLUSAE(sae.d_in, len(half))
        other.W_dec.data = half.tokens[:, 0] - made.attacker.own.tokens[:, 0].mean(0)
        leaking.append(other)
    found = gain(attacks(made.attacker, CLIP, LAYER)["a latent as a class token"], leaking, made.halves)
    assert found.gain > 0.1 and found.told > 0.9


def test_what_the_page_says_is_not_prevented_is_so(many):
    """Who has a photograph can tell whether a small SAE was trained on it; other photographs tell little."""
    made, saes = many
    assert told_apart(made, saes, itself=True) > 0.8
    assert told_apart(made, saes, itself=False) < 0.65

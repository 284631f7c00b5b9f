"""Shapley values against all orders, worked out by hand, and on the model."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
import torch

from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.spliced_clip import original
from stages.core.readout_maps.changed_inputs import HidableImages, read_pixels
from stages.core.readout_maps.fills import filled
from stages.core.readout_maps.shapley import coalition_readouts, interaction, partition, shapley_values


def over_all_orders(values, k: int) -> list[float]:
    """Mean gain when a region appears, over all orders."""
    orders, found = list(permutations(range(k))), [0.0] * k
    for order in orders:
        seen = 0
        for i in order:
            found[i] += (values[seen | 1 << i] - values[seen]) / len(orders)
            seen |= 1 << i
    return found


@pytest.mark.parametrize("k", [2, 3, 4])
def test_values_equal_the_mean_over_all_orders_and_add_up(rng, k):
    readouts = rng.normal(size=(5, 2**k))
    found = shapley_values(readouts)
    assert found == pytest.approx(np.array([over_all_orders(values, k) for values in readouts]))
    assert found.sum(1) == pytest.approx(readouts[:, -1] - readouts[:, 0])


def test_regions_that_do_the_same_have_the_same_value_and_one_that_does_nothing_has_none(rng):
    """Regions 0 and 1 are interchangeable: R depends on how many of them are seen. Region 2 does nothing."""
    by_count = rng.normal(size=3)
    readouts = np.array([[by_count[(c & 1) + (c >> 1 & 1)] for c in range(8)]])
    face, bust, rest = shapley_values(readouts)[0]
    assert face == pytest.approx(bust) and rest == pytest.approx(0)


def test_the_interaction_by_hand(rng):
    """R = 2 face + 3 bust - 4 face bust + 5 rest, and a term of all three: the index takes half of it."""
    seen = [(c & 1, c >> 1 & 1, c >> 2 & 1) for c in range(8)]
    readouts = np.array([[2 * f + 3 * b - 4 * f * b + 5 * r for f, b, r in seen]], dtype=float)
    assert interaction(readouts, 0, 1) == pytest.approx([-4])
    assert interaction(readouts, 0, 2) == pytest.approx([0])
    assert shapley_values(readouts)[0] == pytest.approx([0, 1, 5])
    readouts += [[6.0 * f * b * r for f, b, r in seen]]
    assert interaction(readouts, 0, 1) == interaction(readouts, 1, 0) == pytest.approx([-4 + 6 / 2])


def test_the_interaction_is_the_mean_over_orders_in_which_the_two_appear_as_one(rng):
    """The definition by orders: the pair enters as one player, and its joint gain is compared with the single ones."""
    k, (i, j) = 4, (1, 3)
    values = rng.normal(size=2**k)
    others, gains = [p for p in range(k) if p not in (i, j)], []
    for order in permutations(["pair", *others]):
        before = sum(1 << p for p in order[: order.index("pair")])
        one, two = 1 << i, 1 << j
        gains.append(values[before | one | two] - values[before | one] - values[before | two] + values[before])
    assert interaction(values[None], i, j) == pytest.approx([np.mean(gains)])


def test_what_lies_in_both_masks_is_the_face():
    face, bust = torch.tensor([[[1.0, 0.5], [0.0, 0.0]]]), torch.tensor([[[1.0, 0.5], [1.0, 0.0]]])
    found = partition(face, bust)[0]
    assert found.tolist() == [[[1, 0.5], [0, 0]], [[0, 0.25], [1, 0]], [[0, 0.25], [0, 1]]]


def test_coalitions_of_a_model_show_their_regions_alone(spliced):
    rows = np.array([2, 7, 12])
    images = spliced.data.images(rows)
    pixels, grey = spliced.clip.pixels(images), spliced.clip.pixels(filled(images, "grey"))
    face, bust = (torch.from_numpy(spliced.data.mask(region, rows) / np.float32(255)) for region in ("face", "bust"))
    arms = [original, spliced.edit_arm(LatentEdit(latents=torch.arange(16)), "all")]
    hidable = HidableImages(read_pixels(spliced, rows, arms), pixels, grey, batch_size=5)
    found, edited = coalition_readouts(hidable, partition(face, bust)).unbind(2)
    with spliced.arm_in_place(arms[1], rows):
        assert torch.allclose(
            edited[:, -1], spliced.readout.score(spliced.clip.embed(pixels), spliced.truth(rows)), atol=1e-5
        )
    assert not torch.allclose(edited, found, atol=1e-3)
    masks = [face.bool(), bust.bool(), ~(face.bool() | bust.bool())]
    truth = spliced.truth(rows)
    for size in range(4):
        for chosen in combinations(range(3), size):
            shown = grey.clone()
            for i in chosen:
                shown = torch.where(masks[i][:, None], pixels, shown)
            expected = spliced.readout.score(spliced.clip.embed(shown), truth)
            assert torch.allclose(found[:, sum(1 << i for i in chosen)], expected, atol=1e-5)
    values = shapley_values(found.double().numpy())
    assert values.sum(1) == pytest.approx((found[:, 7] - found[:, 0]).numpy(), abs=1e-5)
    assert np.abs(values).max() > 1e-3

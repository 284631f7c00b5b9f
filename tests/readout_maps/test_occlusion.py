"""Occlusion maps against a plain loop, and against a readout that is a sum over patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.spliced_clip import original
from stages.core.readout_maps.changed_inputs import HidableImages, read_pixels
from stages.core.readout_maps.fills import filled
from stages.core.readout_maps.occlusion import WindowError, occlusion, windows

ROWS = np.array([3, 9, 4])


def mapped(spliced, pixels, hidden, arms=(original,), rows=ROWS, batch_size=5, **windows) -> torch.Tensor:
    """The map under each arm, with R of the unchanged images from a pass of its own."""
    read = read_pixels(spliced, rows, arms)
    whole = read(pixels, torch.arange(len(rows))).detach()
    return occlusion(HidableImages(read, pixels, hidden, batch_size), whole, grid=(4, 4), **windows)


def looped(spliced, pixels, hidden, window: int, stride: int) -> np.ndarray:
    """One image and one window at a time, on a grid of 4 x 4 patches of 8 pixels."""
    truth, found = spliced.truth(ROWS), np.zeros((len(pixels), 4, 4))
    starts = [*range(0, 4 - window, stride), 4 - window]

    def R(i, image):
        return float(spliced.readout.score(spliced.clip.embed(image[None]), truth[i : i + 1]).detach())

    for i, image in enumerate(pixels):
        values = [[[] for _ in range(4)] for _ in range(4)]
        for top in starts:
            for left in starts:
                covered = image.clone()
                rows, columns = slice(8 * top, 8 * (top + window)), slice(8 * left, 8 * (left + window))
                covered[:, rows, columns] = hidden[i, :, rows, columns]
                change = (R(i, image) - R(i, covered)) / window**2
                for y in range(top, top + window):
                    for x in range(left, left + window):
                        values[y][x].append(change)
        found[i] = [[np.mean(patch) for patch in row] for row in values]
    return found


@pytest.mark.parametrize(("window", "stride", "fill"), [(1, 1, "grey"), (2, 1, "blurred"), (3, 2, "grey")])
def test_it_equals_a_plain_loop(spliced, window, stride, fill):
    images = spliced.data.images(ROWS)
    pixels, hidden = spliced.clip.pixels(images), spliced.clip.pixels(filled(images, fill))
    found = mapped(spliced, pixels, hidden, window=window, stride=stride)
    expected = looped(spliced, pixels, hidden, window, stride)
    assert np.abs(expected).max() > 1e-3
    assert found[:, 0].numpy() == pytest.approx(expected, abs=1e-5)


def test_a_sum_over_patches_is_given_back_and_adds_up():
    """R = sum over patches of a weight where the patch is white. Windows of one patch return the weights; larger
    windows that tile the image return their mean."""
    weights = torch.tensor([[1.0, -2.0], [0.5, 4.0]])
    weights = weights.repeat_interleave(2, 0).repeat_interleave(2, 1) + torch.arange(16.0).view(4, 4) / 16

    def read(pixels, image):
        return (pixels[:, 0, ::2, ::2] * weights).sum((1, 2))

    white = torch.ones(1, 3, 8, 8)
    whole, images = read(white, None), HidableImages(read, white, 0 * white, batch_size=4)
    fine = occlusion(images, whole, grid=(4, 4), window=1, stride=1)
    coarse = occlusion(images, whole, grid=(4, 4), window=2, stride=2)
    assert torch.allclose(fine[0], weights)
    means = weights.unflatten(1, (2, 2)).unflatten(0, (2, 2)).mean((1, 3))
    assert torch.allclose(coarse[0], means.repeat_interleave(2, 0).repeat_interleave(2, 1), atol=1e-6)
    assert float(coarse.sum()) == pytest.approx(float(weights.sum()))


def test_the_last_window_ends_at_the_edge():
    assert windows((3, 5), 2, 2).shape == (2 * 3, 3, 5)
    assert windows((3, 5), 2, 2).any(0).all()


@pytest.mark.parametrize(("window", "stride"), [(5, 1), (2, 3)])
def test_windows_that_do_not_fit_are_refused(window, stride):
    with pytest.raises(WindowError, match=r"map_readout\.window to at most 4"):
        windows((4, 6), window, stride)


def test_each_arm_has_the_map_of_its_own_model(spliced):
    """All arms at once equal each arm alone; the edit changes the map, and an edit of nothing does not."""
    pixels = spliced.clip.pixels(spliced.data.images(ROWS))
    nothing, some = (
        spliced.edit_arm(LatentEdit(latents=torch.tensor(latents, dtype=torch.long)), "all")
        for latents in ([], list(range(16)))
    )
    arms = (original, nothing, some)
    found = mapped(spliced, pixels, 0 * pixels, arms, window=2, stride=2)
    alone = [mapped(spliced, pixels, 0 * pixels, [arm], window=2, stride=2) for arm in arms]
    assert torch.allclose(found, torch.cat(alone, 1), atol=1e-6)
    assert torch.equal(found[:, 1], found[:, 0])
    assert not torch.allclose(found[:, 2], found[:, 0], atol=1e-3)


def test_R_of_an_arm_is_what_the_model_gives_with_the_arm_in_place(spliced):
    """Against a full pass of CLIP with a hook at the splice."""
    pixels = spliced.clip.pixels(spliced.data.images(ROWS)) / 2
    arm = spliced.edit_arm(LatentEdit(latents=torch.arange(16), kind="patch"), "all")
    found = read_pixels(spliced, ROWS, [original, arm])(pixels, torch.arange(len(ROWS)))
    for i, each in enumerate((original, arm)):
        with spliced.arm_in_place(each, ROWS):
            expected = spliced.readout.score(spliced.clip.embed(pixels), spliced.truth(ROWS))
        assert torch.allclose(found[:, i], expected, atol=1e-5)
    assert (found[:, 0] - found[:, 1]).abs().max() > 1e-3


def test_an_edit_from_the_twins_reads_the_twin_of_each_changed_image(spliced):
    """Image by image and all at once, with a batch that ends inside an image."""
    pixels = spliced.clip.pixels(spliced.data.images(ROWS))
    arms = [spliced.edit_arm(LatentEdit(latents=torch.arange(16), kind="patch"), "all")]
    together = mapped(spliced, pixels, 0 * pixels, arms, batch_size=7, window=2, stride=2)
    for i in range(len(ROWS)):
        one = slice(i, i + 1)
        alone = mapped(spliced, pixels[one], 0 * pixels[one], arms, ROWS[one], batch_size=64, window=2, stride=2)
        assert torch.allclose(together[one], alone, atol=1e-6)

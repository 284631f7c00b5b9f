"""Occlusion (Zeiler and Fergus 2014): what R loses when a window of patches is hidden. Signed, nats.

    change of a window    R(image) - R(image with the window hidden)
    map at a patch        mean, over the windows that hide the patch, of the change per patch of the window

With windows of one patch, the map is the change itself. If R were a sum over patches, and windows tiled the image, the
map would add up to R(image) - R(hidden image), for windows of any size.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stages.core.readout_maps.changed_inputs import HidableImages
from stages.core.run.errors import StudyError


class WindowError(StudyError):
    """A window that is larger than the grid of patches. The message names both, and the remedy."""


def occlusion(
    images: HidableImages, whole: Float[Tensor, "n ..."], *, grid: tuple[int, int], window: int, stride: int
) -> Float[Tensor, "n ... gh gw"]:
    """Compute the occlusion map of R of each image: a value per patch, nats. It takes one pass per image and window.

    images: the images, what hides a part of them, and the model or the arms that read them.
    whole: R of the unchanged images, under each arm if there are several.
    grid: number of patches down and across.
    window: side of a window, in patches. stride: distance between windows, in patches. The last window of a row or
        column ends at the edge, so every patch is hidden at least once if `stride` is at most `window`.
    Returns a map of each image (under each arm). A value above 0 means that the patch raises R.
    Raises WindowError if a window does not fit the grid, or if windows leave patches out.
    """
    places = windows(grid, window, stride).to(whole.device)
    visible = ~in_pixels(places, images.pixels.shape[-1])
    change = whole[:, None] - images.R(visible.expand(len(whole), *visible.shape))
    return torch.einsum("np...,pyx->n...yx", change / window**2, places.to(change.dtype)) / places.sum(0)


def windows(grid: tuple[int, int], window: int, stride: int) -> Bool[Tensor, "place gh gw"]:
    """List all windows of an occlusion map. Returns, for each, True at the patches that it hides.

    grid: number of patches down (gh) and across (gw). window: side of a window. stride: distance between windows.
    The last window of a row or column ends at the edge.
    Raises WindowError if a window does not fit the grid, or if windows leave patches out.
    """
    if window > min(grid) or stride > window:
        raise WindowError(
            f"windows of {window} x {window} patches, {stride} apart, on a grid of {grid[0]} x {grid[1]}: set "
            f"map_readout.window to at most {min(grid)}, and map_readout.stride to at most the window"
        )
    tops, lefts = (sorted({*range(0, side - window, stride), side - window}) for side in grid)
    places = torch.zeros(len(tops), len(lefts), *grid, dtype=torch.bool)
    for i, top in enumerate(tops):
        for j, left in enumerate(lefts):
            places[i, j, top : top + window, left : left + window] = True
    return places.flatten(0, 1)


def in_pixels(patches: Bool[Tensor, "n gh gw"], side: int) -> Bool[Tensor, "n s s"]:
    """Enlarge marks of patches to marks of pixels. side: side of the square image in pixels."""
    _, gh, gw = patches.shape
    return patches.repeat_interleave(side // gh, 1).repeat_interleave(side // gw, 2)

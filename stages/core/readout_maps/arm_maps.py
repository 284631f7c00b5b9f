"""All maps of R of some images under some arms (interventions on the residual stream), except those of the latents.

occlusion                       under each arm
integrated_gradients            from grey to the pixels, in the original model alone
integrated_gradients_blurred    from the blurred image to the pixels, in the original model alone
integrated_gradients_tokens     from the mean tokens to the tokens that each arm gives
attribution, grad_eclip         through the last attention, under each arm
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.core.latents.spliced_clip import Arm, SplicedClip
from stages.core.readout_maps import integrated_gradients
from stages.core.readout_maps.changed_inputs import HidableImages, read_pixels, read_pixels_of_original, read_tokens
from stages.core.readout_maps.fills import Fill, filled
from stages.core.readout_maps.integrated_gradients import CompleteMaps, StraightPath
from stages.core.readout_maps.last_attention import last_attention_maps
from stages.core.readout_maps.occlusion import occlusion
from stages.core.readout_maps.regions import Grids, shares
from stages.core.readout_maps.shapley import coalition_readouts, partition
from stages.core.run.progress import bar
from stages.core.schema import MapReadout

PIXEL_PATHS: dict[Fill, str] = {"grey": "integrated_gradients", "blurred": "integrated_gradients_blurred"}
"""Name of the map of integrated gradients of pixels, by the picture where its path starts."""
TOKEN_PATH = "integrated_gradients_tokens"  # from the mean tokens


@dataclass(frozen=True)
class ArmMaps:
    """Maps of R (log-probability of the true emotion, nats) of some images in one model: original or edited.

    grids: maps [image, gh, gw] by name. Integrated gradients of pixels are those of the original model alone: in the
        edited one R jumps where an edited latent begins to fire, and no gradient sees a jump.
    completeness: for each map that should add up to a change of R, two arrays [image]: the change, and how far the map
        is from it.
    coalitions: R of each image for each set of visible regions, [image, coalition] (`readout_maps/shapley.py`).
    """

    grids: dict[str, Grids]
    completeness: dict[str, tuple[np.ndarray, np.ndarray]]
    coalitions: np.ndarray


def mean_tokens(spliced: SplicedClip, rows: np.ndarray) -> Tensor:
    """Compute the mean over images of each token that the SAE reads. Returns an array [token, width].

    spliced: CLIP with the SAE, and the data set. rows: row numbers of the images in the data set's table.
    """
    total = sum(tokens.double().sum(0) for _, tokens in spliced.batches(rows))
    return torch.as_tensor(total / len(rows)).float()


def map_arms(
    spliced: SplicedClip, rows: np.ndarray, arms: dict[str, Arm], mean: Tensor, config: MapReadout
) -> dict[str, ArmMaps]:
    """Compute all maps of R of some images, except those of the latents, under each arm.

    spliced: CLIP with the SAE, and the data set.
    rows: row numbers of the images in the data set's table.
    arms: interventions on the residual stream, by name. The first one is that of the original model.
    mean: mean tokens [token, width], where the path to the tokens of an image starts.
    config: sizes of windows, numbers of steps, and blur.
    Returns the maps by arm.
    Raises WindowError if windows do not fit the grid of patches. Raises ExplainError if the formulas of Grad-ECLIP do
    not apply to the model.
    """
    shown = bar("map R", len(list(spliced.slices(rows))), shown=spliced.ranks.first)

    def by_batch(some: np.ndarray) -> tuple[Tensor, ...]:
        hidden = hide_parts(spliced, some, list(arms.values()), config)
        parts = [map_pixels(spliced, some, fill, config) for fill in config.baselines]
        parts += [map_tokens(spliced, some, arm, mean, config) for arm in arms.values()]
        shown.update(spliced.ranks.size)
        return *hidden, *(part for path in parts for part in (path.maps, path.change, path.completeness_gap))

    with shown:
        coalitions, hidden, *found = spliced.compute_by_batch(rows, by_batch)
    first = next(iter(arms))
    paths = [(first, PIXEL_PATHS[fill]) for fill in config.baselines] + [(name, TOKEN_PATH) for name in arms]
    complete = dict(zip(paths, zip(found[::3], found[1::3], found[2::3], strict=True), strict=True))
    mapped = {}
    for i, (name, arm) in enumerate(arms.items()):
        mine = {path: maps for (model, path), maps in complete.items() if model == name}
        grids = {"occlusion": hidden[:, i]} | {path: maps for path, (maps, _, _) in mine.items()}
        grids |= {str(method): maps for method, maps in last_attention_maps(spliced, rows, arm).items()}
        completeness = {path: (change, missed) for path, (_, change, missed) in mine.items()}
        mapped[name] = ArmMaps(grids, completeness, coalitions[:, :, i])
    return mapped


def hide_parts(spliced: SplicedClip, rows: np.ndarray, arms: list[Arm], config: MapReadout) -> tuple[Tensor, ...]:
    """Compute R of some images, and their occlusion maps of R, while parts of them are hidden, under each arm.

    spliced, config: as for `map_arms`. rows: row numbers of the images of one batch.
    arms: interventions on the residual stream.
    Returns R for each set of visible regions [image, coalition, arm] and the occlusion maps [image, arm, gh, gw].
    """
    clip, data, pictures = spliced.clip, spliced.data, spliced.data.images(rows)
    pixels, grey = clip.pixels(pictures), clip.pixels(filled(pictures, "grey"))
    images = HidableImages(read_pixels(spliced, rows, arms), pixels, grey, config.batch_size)
    face, bust = (torch.from_numpy(shares(data, region, rows)).to(pixels) for region in ("face", "bust"))
    coalitions = coalition_readouts(images, partition(face, bust))
    hidden = occlusion(images, coalitions[:, -1], grid=clip.grid, window=config.window, stride=config.stride)
    return coalitions.double(), hidden


def map_pixels(spliced: SplicedClip, rows: np.ndarray, fill: Fill, config: MapReadout) -> CompleteMaps:
    """Compute integrated gradients of R in the original model, from a picture without features to some images.

    spliced, config: as for `map_arms`. rows: row numbers of the images of one batch.
    fill: the picture where the path to an image starts: grey, or the image itself after a blur.
    """
    clip, pictures = spliced.clip, spliced.data.images(rows)
    baseline, pixels = (clip.pixels(some) for some in (filled(pictures, fill, config.blur), pictures))
    read = read_pixels_of_original(spliced, rows)
    path = StraightPath(read, baseline, pixels, config.n_steps, config.batch_size)
    return integrated_gradients.of_pixels(path, clip.grid)


def map_tokens(spliced: SplicedClip, rows: np.ndarray, arm: Arm, mean: Tensor, config: MapReadout) -> CompleteMaps:
    """Compute integrated gradients of R from the mean tokens to the tokens that an arm gives, from the store.

    spliced: CLIP with the SAE, and the data set. rows: row numbers of the images of one batch.
    arm: an intervention on the residual stream. mean: mean tokens [token, width].
    config: number of steps, and of tokens of changed images in one pass.
    """
    tokens = arm(spliced.batch(rows))
    read, baseline = read_tokens(spliced, rows), mean.expand_as(tokens)
    path = StraightPath(read, baseline, tokens, config.n_steps, config.batch_size)
    return integrated_gradients.of_tokens(path, spliced.clip.grid)

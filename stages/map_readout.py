"""Signed maps of the emotion readout R: where a picture raises R, and where it misleads the model, in nats.

reads    data/dataset, data/clip, data/selection, data/activations
writes   metrics/map_readout.json (estimates), metrics/full/map_readout.json (with intervals), plots/map_readout.png
         (maps of some twins, without and with the edit)
claims   how many nats of R bust and face add or take away, in both conditions, with a control region of the same area
         beside each, in the original and in the edited model; how much each of face, bust and rest counts (Shapley
         values), and whether face and bust interact; and where the edited latents act. On confirmation women, who were
         held out: nothing was chosen on them

R is the log-probability of the true emotion, nats. A gap is clothed minus semi-nude image of a pair. Below 0, a place
lowers R. The maps, each an array [image, gh, gw]:
    occlusion                       what R loses when a window is hidden, spread over its patches
    integrated_gradients            R(image) - R(grey image), divided among the pixels; original model alone
    integrated_gradients_blurred    the same, from the blurred image (`map_readout.baselines`)
    integrated_gradients_tokens     the same among the tokens that the SAE reads, from their mean over discovery images
    attribution, grad_eclip         first order, through the last attention
    edited_latents                  R(image) - R(image with the latents edited), divided among the tokens
    edited_latents_first_order      sum of f . dR/df over the edited latents

    torchrun --nproc-per-node 8 -m stages.map_readout      # eight processes share the images
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.core import figures
from stages.core.clip import vit
from stages.core.data import dataset
from stages.core.data.choice import evenly
from stages.core.data.dataset import Dataset
from stages.core.latents import selection
from stages.core.latents.selection import Selection
from stages.core.latents.spliced_clip import Arm, SplicedClip, original
from stages.core.paired import SHARE, Pairs
from stages.core.readout_maps import integrated_gradients
from stages.core.readout_maps.changed_inputs import HidableImages, read_pixels, read_pixels_of_original, read_tokens
from stages.core.readout_maps.fills import Fill, filled
from stages.core.readout_maps.integrated_gradients import CompleteMaps, StraightPath
from stages.core.readout_maps.last_attention import last_attention_maps
from stages.core.readout_maps.latent_maps import edit_maps, effect_maps
from stages.core.readout_maps.occlusion import occlusion
from stages.core.readout_maps.regions import control_masks, coverage_of, harm_share, region_sum
from stages.core.readout_maps.shapley import PLAYERS, coalition_readouts, interaction, partition, shapley_values
from stages.core.run import outs, params
from stages.core.run.compute import join_ranks, leave_ranks
from stages.core.run.errors import run_command
from stages.core.run.labels import CONDITIONS, REGIONS
from stages.core.run.progress import bar
from stages.core.schema import Compute, Edit, Inference, MapReadout

DATASET_DPATH, CLIP_DPATH, ACTIVATIONS_DPATH = Path("data/dataset"), Path("data/clip"), Path("data/activations")
SELECTION_DPATH = Path("data/selection")
METRICS_FPATH, FULL_FPATH = Path("metrics/map_readout.json"), Path("metrics/full/map_readout.json")
PLOT_FPATH = Path("plots/map_readout.png")
FROM: dict[Fill, str] = {"grey": "integrated_gradients", "blurred": "integrated_gradients_blurred"}
TOKENS = "integrated_gradients_tokens"
N_AT_ONCE = 4  # images that are changed in turn; each is changed a hundred times and more, and processes share the rest
DRAWN = "occlusion"  # the map of the figure: what hiding a window really does, without a gradient

Grids = np.ndarray  # [image, gh, gw]


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


def choose_pairs(pairs: Pairs, n_women: int, n_pairs: int) -> Pairs:
    """Choose women evenly spaced among all, and some pairs of each. The next woman starts at her next pair.

    So all expressions are among the first pairs of the women, if each woman has them in the same order.

    pairs: the pairs of all women. n_women: largest number of women. n_pairs: largest number of pairs of a woman.
    """
    groups = list(pairs.table.groupby("identity", sort=False).indices.values())
    chosen = [
        np.roll(groups[woman], -i)[evenly(len(groups[woman]), n_pairs)]
        for i, woman in enumerate(evenly(len(groups), n_women))
    ]
    return Pairs(pairs.table.iloc[np.sort(np.concatenate(chosen))].reset_index(drop=True))


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
    Raises WindowError if windows do not fit the grid of patches. Raises ExplainError if the formulas of Grad-ECLIP do
    not apply to the model.
    """
    shown = bar("map R", len(list(spliced.slices(rows))), shown=spliced.ranks.first)

    def by_batch(some: np.ndarray) -> tuple[Tensor, ...]:
        hidden = hide_parts(spliced, some, list(arms.values()), config)
        complete = [map_path(spliced, some, fill, config) for fill in config.baselines]
        complete += [map_tokens(spliced, some, arm, mean, config) for arm in arms.values()]
        shown.update(spliced.ranks.size)
        return *hidden, *(part for found in complete for part in (found.maps, found.change, found.completeness_gap))

    with shown:
        coalitions, hidden, *found = spliced.compute_by_batch(rows, by_batch)
    paths = list(zip(found[::3], found[1::3], found[2::3], strict=True))  # maps, change, completeness gap of each path
    of_pixels = dict(zip((FROM[fill] for fill in config.baselines), paths, strict=False))
    of_tokens = paths[len(config.baselines) :]
    mapped = {}
    for i, (name, arm) in enumerate(arms.items()):
        mine = {TOKENS: of_tokens[i]} | (of_pixels if i == 0 else {})
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


def map_path(spliced: SplicedClip, rows: np.ndarray, fill: Fill, config: MapReadout) -> CompleteMaps:
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


def shares(data: Dataset, region: str, rows: np.ndarray) -> np.ndarray:
    """Return the share of each pixel inside a region, 0 to 1: an array [image, side, side], float32.

    data: the data set. region: bust or face. rows: row numbers of the images in the data set's table.
    """
    return data.mask(region, rows) / np.float32(255)


def find_places(data: Dataset, rows: np.ndarray, grid: tuple[int, int]) -> tuple[dict[str, Grids], dict[str, int]]:
    """Find bust and face of each image, and a control region for each: the same area elsewhere.

    data: the data set. rows: row numbers of the images in the data set's table.
    grid: number of patches down and across.
    Returns the coverage [image, gh, gw] of bust, bust_control, face and face_control, and the number of images in which
    the shape of bust or face fits elsewhere. In other images the control is the area alone, spread over the rest.
    """
    masks = {region: shares(data, region, rows).astype(np.float64) for region in REGIONS}
    avoided = np.maximum(*masks.values())
    found: dict[str, Grids] = {}
    n_fitting: dict[str, int] = {}
    for region, mask in masks.items():
        control, fits = control_masks(mask, avoided)
        found |= {region: coverage_of(mask, grid), f"{region}_control": coverage_of(control, grid)}
        n_fitting[f"{region}_shape_fits_elsewhere"] = int(fits.sum())
    return found, n_fitting


def summarise_map(maps: Grids, places: dict[str, Grids], pairs: Pairs, inference: Inference) -> dict[str, dict]:
    """Summarise one map of R over pairs, with intervals over women.

    maps: the map of each image of `pairs.rows`, nats. places: coverage [image, gh, gw] by name.
    Returns keys, each with semi_nude, clothed and gap (clothed minus semi-nude); each of these has estimate, low, high:
        whole_sum             sum of the map, nats
        <place>_sum           sum of the map in the place, nats
        <place>_harm_share    share of the negative values that lies in the place
    """
    found = {"whole_sum": pairs.summary(maps.sum((1, 2), dtype=np.float64), inference)}
    for name, coverage in places.items():
        found[f"{name}_sum"] = pairs.summary(region_sum(maps, coverage), inference)
        found[f"{name}_harm_share"] = pairs.summary(harm_share(maps, coverage), inference, SHARE)
    return found


def summarise_players(coalitions: np.ndarray, pairs: Pairs, inference: Inference) -> dict[str, dict]:
    """Summarise Shapley values of face, bust and rest, and the interaction of face and bust, nats.

    coalitions: R of each image of `pairs.rows` for each set of visible regions.
    Returns the keys face, bust, rest and face_bust_interaction. Each has semi_nude, clothed and gap; each of these has
    estimate, low and high.
    """
    values = dict(zip(PLAYERS, shapley_values(coalitions).T, strict=True))
    values["face_bust_interaction"] = interaction(coalitions, PLAYERS.index("face"), PLAYERS.index("bust"))
    return {name: pairs.summary(per_image, inference) for name, per_image in values.items()}


def summarise_completeness(change: np.ndarray, gap: np.ndarray) -> dict[str, float]:
    """Say how far maps are from the change of R that they should add up to. All values are in nats.

    change: the change of R of each image. gap: distance of the map's sum from it.
    """
    return {"mean_change": float(np.abs(change).mean()), "mean_gap": float(gap.mean()), "largest_gap": float(gap.max())}


@dataclass(frozen=True)
class LatentMaps:
    """Where in the picture the edited latents act on R (log-probability of the true emotion, nats).

    latents: indices of the edited latents.
    maps: what the edit of each latent does at each patch, [image, latent, gh, gw]. Below 0, the edit raises R.
    at_cls: the same at the class token, [image, latent].
    change: R without the edit minus R with it, which all of these add up to, [image].
    first_order: f . dR/df of each latent at each patch, [image, latent, gh, gw].
    """

    latents: np.ndarray
    maps: np.ndarray
    at_cls: np.ndarray
    change: np.ndarray
    first_order: np.ndarray


def map_latents(
    spliced: SplicedClip, rows: np.ndarray, chosen: Selection, edit: Edit, config: MapReadout
) -> LatentMaps:
    """Compute where in the picture the edited latents act on R.

    spliced: CLIP with the SAE, and the data set. rows: row numbers of the images in the data set's table.
    chosen: the latents to edit. edit: the edit of params.yaml.
    config: number of gradients on the path of an image, and of changed images in one pass.
    """
    whole = spliced.selected_edit_arm(chosen, edit)
    parts = [spliced.selected_edit_arm(chosen, edit, chosen.latents[i : i + 1]) for i in range(len(chosen.latents))]
    exact = edit_maps(spliced, rows, whole, parts, n_steps=config.n_steps, batch_size=config.batch_size)
    return LatentMaps(chosen.latents, *exact, effect_maps(spliced, rows, chosen.latents)[0])


def measure(
    mapped: dict[str, ArmMaps], places: dict[str, Grids], pairs: Pairs, inference: Inference
) -> dict[str, dict[str, Any]]:
    """Summarise all maps of R over pairs, with intervals over women.

    mapped: the maps of the images of `pairs.rows`, by arm (original, and edited if latents are edited).
    places: coverage [image, gh, gw] of bust, face and their controls. inference: settings of the intervals.
    Returns three keys:
        maps            by map and arm: `summarise_map`
        shapley         by arm: `summarise_players`
        completeness    by map and arm: `summarise_completeness`
    """
    original_maps = next(iter(mapped.values()))  # the original model has all maps
    return {
        "maps": {
            name: {
                arm: summarise_map(maps.grids[name], places, pairs, inference)
                for arm, maps in mapped.items()
                if name in maps.grids
            }
            for name in original_maps.grids
        },
        "shapley": {arm: summarise_players(maps.coalitions, pairs, inference) for arm, maps in mapped.items()},
        "completeness": {
            name: {
                arm: summarise_completeness(*maps.completeness[name])
                for arm, maps in mapped.items()
                if name in maps.completeness
            }
            for name in original_maps.completeness
        },
    }


def with_latents(
    found: dict[str, Any], by_latent: LatentMaps, places: dict[str, Grids], pairs: Pairs, inference: Inference
) -> dict[str, Any]:
    """Add the maps of the edited latents to all metrics, and return them.

    found: from `measure`. by_latent: maps of the latents for the images of `pairs.rows`. The others: as for `measure`.
    The maps edited_latents and edited_latents_first_order are added for the original model. The first has its
    completeness, and its value at the class token (class_token), which is on no patch. The key latents has, for each
    latent, the sum of its exact map in bust and face, and its value at the class token. All values are in nats. Each
    has semi_nude, clothed and gap, and these have estimate, low and high.
    """
    exact = summarise_map(by_latent.maps.sum(1), places, pairs, inference)
    exact["class_token"] = pairs.summary(by_latent.at_cls.sum(1, dtype=np.float64), inference)
    maps = {
        "edited_latents": {"original": exact},
        "edited_latents_first_order": {
            "original": summarise_map(by_latent.first_order.sum(1), places, pairs, inference)
        },
    }
    missed = np.abs(by_latent.maps.sum((1, 2, 3)) + by_latent.at_cls.sum(1) - by_latent.change)
    completeness = {"edited_latents": {"original": summarise_completeness(by_latent.change, missed)}}
    latents = {}
    for i, latent in enumerate(by_latent.latents):
        sums = {f"{region}_sum": region_sum(by_latent.maps[:, i], places[region]) for region in REGIONS}
        sums["class_token"] = by_latent.at_cls[:, i]
        latents[f"latent_{latent}"] = {name: pairs.summary(values, inference) for name, values in sums.items()}
    return found | {
        "maps": found["maps"] | maps,
        "completeness": found["completeness"] | completeness,
        "latents": latents,
    }


def headline(found: dict[str, Any]) -> dict[str, Any]:
    """Choose the main estimates for the metrics file, without their intervals.

    found: all metrics, as in metrics/full/map_readout.json.
    Returns the keys images, bust_sum_gap and bust_harm_share_gap (by map and arm), and shapley_gap (by arm and region).
    If latents are edited, it also has edited_latents_gap: their gap on all patches together, and at the class token.
    """
    gaps: dict[str, Any] = {
        f"{score}_gap": {
            name: {arm: parts[score]["gap"]["estimate"] for arm, parts in by_arm.items()}
            for name, by_arm in found["maps"].items()
        }
        for score in ("bust_sum", "bust_harm_share")
    }
    gaps["shapley_gap"] = {
        arm: {name: parts["gap"]["estimate"] for name, parts in players.items()}
        for arm, players in found["shapley"].items()
    }
    if "edited_latents" in found["maps"]:
        exact = found["maps"]["edited_latents"]["original"]
        gaps["edited_latents_gap"] = {
            name: exact[key]["gap"]["estimate"] for name, key in (("patches", "whole_sum"), ("class_token",) * 2)
        }
    return {"images": found["images"], **gaps}


def draw(
    data: Dataset, pairs: Pairs, grids: dict[str, Grids], places: dict[str, Grids], n_women: int, fpath: Path
) -> None:
    """Draw the maps of both twins of some women, a row per woman, in one scale of colours. Write the sheet to `fpath`.

    data: the data set, with pictures and masks. pairs: the pairs whose maps are given.
    grids: maps [image, gh, gw] of the images of `pairs.rows`, by arm. places: coverage of bust and face.
    n_women: number of women to draw, evenly spaced among all. The first pair of each is drawn.
    """
    first = np.flatnonzero(~pairs.table["identity"].duplicated().to_numpy())
    shown = first[evenly(len(first), n_women)]
    at = {condition: shown + i * len(pairs) for i, condition in enumerate(CONDITIONS)}
    limit = max(float(np.abs(maps[np.concatenate([*at.values()])]).max()) for maps in grids.values())
    columns = [(condition, arm) for condition in CONDITIONS for arm in grids]
    title = "Where the picture raises R (blue) and lowers it (red); bust solid, face dashed; sums in nats"
    figure, axes = figures.grid(len(shown), len(columns), title, cell=(2.2, 2.6))
    for r in range(len(shown)):
        for ax, (condition, arm) in zip(axes[r], columns, strict=True):
            i = at[condition][r]
            row, heat = pairs.rows[i : i + 1], grids[arm][i]
            bust, face = (data.mask(region, row)[0] for region in ("bust", "face"))
            colours = figures.signed_overlay(ax, data.images(row)[0], heat, limit, bust=bust, face=face)
            sums = {region: float((heat * places[region][i]).sum()) for region in REGIONS}
            written = ", ".join(f"{region} {round(value, 2) + 0.0:+.2f}" for region, value in sums.items())  # no -0.00
            ax.set_title(f"{figures.CONDITION_LABELS[condition]}, {arm}\n{written}", fontsize=8.5)
    figure.colorbar(colours, ax=axes, shrink=0.6, label="nats per patch")
    figures.save(figure, fpath)


def main() -> None:
    params.command_line(__doc__).parse_args()
    compute, inference, edit, config = params.load(Compute, Inference, Edit, MapReadout)
    clip, data = vit.load(CLIP_DPATH, compute), dataset.load(DATASET_DPATH)
    chosen, ranks = selection.load(SELECTION_DPATH), join_ranks(clip.device)
    spliced = SplicedClip.from_selection(chosen, clip, data, ACTIVATIONS_DPATH, N_AT_ONCE, ranks)
    pairs = choose_pairs(Pairs.from_images(data.table, "confirmation"), config.n_women, config.n_pairs)
    mean = mean_tokens(spliced, data.rows("discovery"))
    arms = {"original": original} | ({"edited": spliced.selected_edit_arm(chosen, edit)} if len(chosen.latents) else {})
    mapped = map_arms(spliced, pairs.rows, arms, mean, config)
    by_latent = map_latents(spliced, pairs.rows, chosen, edit, config) if len(chosen.latents) else None
    if ranks.first:
        places, n_fitting = find_places(data, pairs.rows, clip.grid)
        counts = {"mapped": len(pairs.rows), "women": pairs.n_women, **n_fitting}
        found = {"images": counts, **measure(mapped, places, pairs, inference)}
        if by_latent is not None:
            found = with_latents(found, by_latent, places, pairs, inference)
        outs.write_metrics(FULL_FPATH, found)
        outs.write_metrics(METRICS_FPATH, headline(found))
        grids = {name: maps.grids[DRAWN] for name, maps in mapped.items()}
        draw(data, pairs, grids, places, config.n_shown, PLOT_FPATH)
    leave_ranks()


if __name__ == "__main__":
    run_command(main)

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
    attribution                     what each patch sends to R through the last attention, first order
    grad_eclip                      the formula of the published maps, with dR in place of dS (`eclip.py`)
    edited_latents                  R(image) - R(image with the latents edited), divided among the tokens
    edited_latents_first_order      sum of f . dR/df over the edited latents

    torchrun --nproc-per-node 8 -m stages.map_readout      # eight processes share the images
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stages.core.clip import vit
from stages.core.data import dataset
from stages.core.data.choice import evenly
from stages.core.latents import selection
from stages.core.latents.spliced_clip import SplicedClip, original
from stages.core.paired import SHARE, Pairs
from stages.core.readout_maps import drawing
from stages.core.readout_maps.arm_maps import ArmMaps, map_arms, mean_tokens
from stages.core.readout_maps.latent_maps import LatentMaps, map_latents
from stages.core.readout_maps.regions import Grids, find_places, harm_share, region_sum
from stages.core.readout_maps.shapley import PLAYERS, interaction, shapley_values
from stages.core.run import outs, params
from stages.core.run.compute import join_ranks, leave_ranks
from stages.core.run.errors import run_command
from stages.core.run.labels import REGIONS
from stages.core.schema import Compute, Edit, Inference, MapReadout

DATASET_DPATH, CLIP_DPATH, ACTIVATIONS_DPATH = Path("data/dataset"), Path("data/clip"), Path("data/activations")
SELECTION_DPATH = Path("data/selection")
METRICS_FPATH, FULL_FPATH = Path("metrics/map_readout.json"), Path("metrics/full/map_readout.json")
PLOT_FPATH = Path("plots/map_readout.png")
N_AT_ONCE = 4  # images that are changed in turn; each is changed a hundred times and more, and processes share the rest
DRAWN = "occlusion"  # the map of the figure: what hiding a window really does, without a gradient


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
        drawing.draw(data, pairs, grids, places, config.n_shown, PLOT_FPATH)
    leave_ranks()


if __name__ == "__main__":
    run_command(main)

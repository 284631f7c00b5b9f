"""Can the heatmaps be believed? Checks of the original model's maps, without an SAE or an edit.

reads    data/dataset, data/clip
writes   metrics/check_heatmaps.json (estimates), metrics/full/check_heatmaps.json (with intervals),
         plots/check_heatmaps.png, plots/check_heatmaps_curves.csv (deletion and insertion),
         plots/check_heatmaps_cascade.csv (parameters randomised)
claims   for each map method, and for baselines that do not depend on the model: how much of the map lies on bust and
         face in each condition, and whether hiding the marked patches changes the readout. For Grad-ECLIP also:
         whether the map depends on the parameters and on the text, and how far the single head of the published code
         changes the cosine. All on confirmation women, who were held out: nothing was chosen on them

The readout is R, the log-probability of the true emotion, nats. A gap is clothed minus semi-nude image of a pair.

Nearly all of the time goes into forward passes. `check_heatmaps` in params.yaml sets their number, and the stage prints
it with an estimate of the time before it starts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int

from stages.core import eclip, localise
from stages.core.checks import baselines, deletion_insertion, drawing, randomisation
from stages.core.checks.checked_images import CheckedImages, Grids
from stages.core.checks.deletion_insertion import KINDS
from stages.core.checks.rank_correlation import agreement
from stages.core.clip import vit
from stages.core.clip.vit import FrozenClip
from stages.core.data import dataset
from stages.core.data.choice import evenly
from stages.core.paired import SHARE, Pairs
from stages.core.run import outs, params, progress
from stages.core.run.errors import run_command
from stages.core.run.labels import CONDITIONS, INSIDE, REGIONS
from stages.core.schema import CheckHeatmaps, Compute, Heatmap, Inference

DATASET_DPATH, CLIP_DPATH = Path("data/dataset"), Path("data/clip")
METRICS_FPATH, FULL_FPATH = Path("metrics/check_heatmaps.json"), Path("metrics/full/check_heatmaps.json")
CURVES_FPATH, CASCADE_FPATH = Path("plots/check_heatmaps_curves.csv"), Path("plots/check_heatmaps_cascade.csv")
PLOT_FPATH = Path("plots/check_heatmaps.png")
CONTRASTED: tuple[eclip.Method, ...] = ("grad_eclip", "attribution")
METHODS: tuple[eclip.Method, ...] = ("grad_eclip", "attribution", "legrad", "attention")
N_MAPS = len(METHODS) + len(CONTRASTED) + len(baselines.NAMES)
N_TIMED = 4  # images of a pass that is timed: enough for a large model, and a few seconds


def perturbed_images(labels: pd.DataFrame, n_wanted: int) -> Int[np.ndarray, " chosen"]:
    """Choose the images of the deletion and insertion curves, evenly spread over all.

    labels: a row per image, with its condition. n_wanted: number of images; all if there are no more.
    Returns the positions of the images. Raises ParamsError if they are all of one condition.
    """
    chosen = evenly(len(labels), n_wanted)
    if len(conditions := set(labels["condition"].iloc[chosen])) < len(CONDITIONS):
        raise params.ParamsError(
            f"check_heatmaps.n_perturbed: the {len(chosen)} images that it chooses are all {conditions.pop()}, but the "
            f"curves are drawn for both conditions; take another number, such as {len(chosen) + 3}"
        )
    return chosen


def spread_over_women(pairs: Pairs, n_wanted: int) -> Int[np.ndarray, " image"]:
    """Choose pairs so that all women have the same number of them, or one more or less.

    The pairs of one woman start at another place in her list than those of the woman before, so that not all women
    show the same emotions.

    pairs: the pairs to choose from. n_wanted: number of pairs; all if there are no more.
    Returns the row numbers of both images of each pair in the data set's table, ascending.
    """
    woman = pd.factorize(pairs.women)[0]
    by_woman = pd.Series(woman).groupby(woman)
    turn = (by_woman.cumcount() + woman) % by_woman.transform("size")
    chosen = np.lexsort([woman, turn])[:n_wanted]
    return np.sort(Pairs(pairs.table.iloc[chosen]).rows)


def n_passes(n_images: int, n_perturbed: int, n_deleted: int, n_redrawn: int, n_blocks: int, n_shares: int) -> int:
    """Count the forward passes of the stage, each of one image.

    n_images: images whose maps are drawn. n_perturbed: images of the deletion and insertion curves.
    n_deleted: images whose bust is deleted. n_redrawn: images whose maps are drawn again.
    n_blocks: blocks of the vision tower. n_shares: shares of patches on a curve. All maps have both its ends in common.
    """
    curve = N_MAPS * (n_shares - 2) + 2
    again = (n_blocks + 2) + 2  # groups of parameters: the blocks, what is above and below; another text; one head
    return n_images + len(KINDS) * curve * n_perturbed + curve * n_deleted + again * n_redrawn


def seconds_per_pass(clip: FrozenClip, images: np.ndarray) -> float:
    """Measure how long a forward pass of one image takes, in seconds. A pass before it does not count.

    clip: the model. images: a batch of the size that the stage uses. All are timed if four are passed in a second, and
    else only four, so that the measurement is short.
    """
    pixels = clip.pixels(images)

    @torch.no_grad()
    def seconds(part: torch.Tensor) -> float:
        start = time.perf_counter()
        clip.embed(part).cpu()
        return time.perf_counter() - start

    timed = pixels if seconds(pixels[:N_TIMED]) < 1 else pixels[:N_TIMED]
    return seconds(timed) / len(timed)


def forecast(n: int, seconds: float) -> str:
    """Write how many forward passes are to come, and how long they take.

    n: number of passes. seconds: time of one, in seconds.
    """
    minutes = n * seconds / 60
    length = (
        f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min" if minutes >= 1.5 else "a minute or less"
    )
    return (
        f"{n:,} forward passes of one image, about {length} at {seconds:.2g} s each. The section "
        "check_heatmaps of params.yaml sets their number."
    )


def every_map(images: CheckedImages, seed: int) -> dict[str, Grids]:
    """Compute all kinds of map that the checks compare, for all images.

    images: the images, and the original model.
    seed: seed of the random maps.
    Returns arrays [image, gh, gw] by name. A map has gh rows and gw columns of patches:
        grad_eclip, attribution, legrad, attention         maps of four methods, for the image's own prompt
        grad_eclip_contrastive, attribution_contrastive    maps of two methods, for a difference of embeddings: the
                                                           image's own prompt minus the mean of the other emotions'
                                                           prompts
        centre_gaussian                                    baseline: a Gaussian in the middle of each image
        random                                             baseline: random values
    """
    raw = images.explain(torch.stack([images.own, images.own - images.others]), methods=METHODS).raw
    found = {str(method): raw[method][:, 0].cpu().numpy() for method in METHODS}
    found |= {f"{method}_contrastive": raw[method][:, 1].cpu().numpy() for method in CONTRASTED}
    return found | baselines.maps(found["grad_eclip"].shape, seed)


def localise_maps(images: CheckedImages, grids: dict[str, Grids], inference: Inference) -> dict[str, dict]:
    """Measure how much of each map lies on bust and face.

    images: the images, and the original model.
    grids: maps [image, gh, gw] by name, for these images. A map has gh rows and gw columns of patches.
    Returns two keys for each map and region (bust, face):
        <region>_energy_lift         share of the map's positive mass that lies on the region, divided by the region's
                                     share of the image area; chance is 1
        <region>_matched_area_iou    IoU of the region with the patches of largest map values. The number of patches is
                                     chosen so that they cover the same area as the region
    Each key holds semi_nude and clothed (means), and gap (clothed minus semi-nude). The gap has estimate, low and high
    (interval over women, with the settings in `inference`).
    """
    metrics: dict[str, dict] = {name: {} for name in grids}
    for region in REGIONS:
        coverage = images.data.coverage(region, images.rows, images.clip.grid)
        for name, maps in grids.items():
            for score, bounds in ((localise.energy_lift, None), (localise.matched_area_iou, SHARE)):
                values = np.array([score(heat, mask) for heat, mask in zip(maps, coverage, strict=True)])
                metrics[name][f"{region}_{score.__name__}"] = images.by_condition(values, inference, bounds)
    return metrics


def perturb(images: CheckedImages, grids: dict[str, Grids], shares: Sequence[float]) -> pd.DataFrame:
    """Compute deletion and insertion curves of each map.

    A curve is mean R while more and more patches are hidden or shown, the largest map values first. R is the
    log-probability of the true emotion, nats.

    images: the images, and the original model.
    grids: maps [image, gh, gw] by name, for these images. A map has gh rows and gw columns of patches.
    shares: the shares of patches hidden or shown, from 0 to 1.
    Returns a row per map, kind of curve, share and condition:
        method       name of the map
        curve        deletion (patches are greyed out) or insertion (patches are shown on a grey image)
        condition    semi_nude or clothed
        share        share of the patches hidden or shown
        R            mean over images
    """
    rows = []
    found = {kind: images.along(grids, kind, shares) for kind in KINDS}
    for name in grids:
        for kind in KINDS:
            for share, R in zip(shares, found[kind][name], strict=True):
                by_condition = pd.Series(R).groupby(images.labels["condition"]).mean()
                rows += [(name, kind, condition, share, float(mean)) for condition, mean in by_condition.items()]
    return pd.DataFrame(rows, columns=["method", "curve", "condition", "share", "R"])


def delete_bust(
    images: CheckedImages, grids: dict[str, Grids], shares: Sequence[float], inference: Inference
) -> dict[str, dict]:
    """Measure how R changes while the patches of the bust are greyed out in the order of each map.

    R is the log-probability of the true emotion, nats. The patches with the largest map values are greyed out first.
    The change of R is averaged over the share of bust patches greyed out, from none to all. A change above 0 means that
    the bust patches with large map values mislead the readout. A change below 0 means that the readout needs them.

    images: the images, and the original model.
    grids: maps [image, gh, gw] by name, for these images. A map has gh rows and gw columns of patches.
    shares: the shares of bust patches greyed out, from 0 to 1.
    inference: settings of the bootstrap.
    Returns, for each map:
        semi_nude, clothed    mean change over the images of the condition
        gap                   clothed minus semi-nude: estimate, low, high (interval over women)
    """
    bust = images.data.coverage("bust", images.rows, images.clip.grid) >= INSIDE
    found = images.along(grids, "deletion", shares, bust)
    return {
        name: images.by_condition(deletion_insertion.area(R, shares) - R[0], inference) for name, R in found.items()
    }


def randomise(images: CheckedImages, reference: Grids, seed: int) -> pd.DataFrame:
    """Randomise the vision tower from the top down, and compare Grad-ECLIP's maps with those of the original model.

    Each step replaces one more group of parameters by random values. The maps are then computed again.

    images: the images, and the original model.
    reference: Grad-ECLIP's maps [image, gh, gw] of the original model, for these images. A map has gh rows and
        gw columns of patches.
    seed: seed of the random parameters.
    Returns a row per step:
        randomised_down_to    the last group randomised: nothing, projection, block <i>, or embeddings
        agreement             rank correlation over patches with the original maps, mean over images
    """
    rows = [("nothing", 1.0)]
    for name, model in randomisation.randomised(images.clip.model, seed):
        raw = images.explain(images.own[None], model).raw["grad_eclip"]
        rows.append((name, agreement(raw[:, 0].cpu().numpy(), reference)))
    return pd.DataFrame(rows, columns=["randomised_down_to", "agreement"])


def measure(images: CheckedImages, reference: Grids, curve: pd.DataFrame, cascaded: pd.DataFrame) -> dict[str, dict]:
    """Summarise four checks of the maps.

    An agreement is a rank correlation of two maps over patches, mean over images. R is the log-probability of the true
    emotion, nats.

    images: the images, and the original model.
    reference: Grad-ECLIP's maps [image, gh, gw] of the original model, for these images. A map has gh rows and
        gw columns of patches.
    curve: deletion and insertion curves, from `perturb`, with the columns method, curve, condition, share and R.
    cascaded: a row per group of parameters randomised, from `randomise`. The column agreement is used.
    Returns
        curves         for each map, <kind>_area_<condition>: area under the curve, nats; kind is deletion or insertion
        text           agreement_with_another_emotion: agreement of Grad-ECLIP's maps for the true emotion with
                       Grad-ECLIP's maps for a different emotion
        parameters     agreement of Grad-ECLIP's maps before and after parameters are randomised: the projection alone
                       (agreement_projection_random), or all parameters (agreement_all_random)
        single_head    Grad-ECLIP with a single attention head in the explained block, as in the published code, against
                       Grad-ECLIP with all heads: mean_cosine_drift (mean absolute change of the cosine of image and
                       text), and agreement of the maps
    """
    by_share = curve.pivot(index="share", columns=["method", "curve", "condition"], values="R")
    areas: dict[str, dict[str, float]] = {method: {} for method in curve["method"].unique()}
    found = deletion_insertion.area(by_share.to_numpy(), by_share.index.to_numpy())
    for (method, kind, condition), value in zip(by_share.columns, found, strict=True):
        areas[method][f"{kind}_area_{condition}"] = float(value)
    another = images.readout.prompts[(images.truth + 1) % len(images.readout.prompts)]
    ours = images.explain(torch.stack([images.own, another]))
    published = images.explain(images.own[None], single_head=True)
    permuted = ours.raw["grad_eclip"][:, 1].cpu().numpy()
    return {
        "curves": areas,
        "text": {"agreement_with_another_emotion": agreement(permuted, reference)},
        "parameters": {
            "agreement_projection_random": float(cascaded["agreement"].iloc[1]),
            "agreement_all_random": float(cascaded["agreement"].iloc[-1]),
        },
        "single_head": {
            "mean_cosine_drift": float((published.similarity[:, 0] - ours.similarity[:, 0]).abs().mean()),
            "agreement": agreement(published.raw["grad_eclip"][:, 0].cpu().numpy(), reference),
        },
    }


def main() -> None:
    params.command_line(__doc__).parse_args()
    compute, inference, heatmap, config = params.load(Compute, Inference, Heatmap, CheckHeatmaps)
    clip, data = vit.load(CLIP_DPATH, compute), dataset.load(DATASET_DPATH)
    rows, seed, shares = data.rows("confirmation"), inference.seed, config.shares
    some = perturbed_images(data.table.iloc[rows], config.n_perturbed)
    again = evenly(len(rows), config.n_redrawn)
    in_pairs = spread_over_women(Pairs.from_images(data.table, "confirmation"), config.n_bust_pairs)
    busts = np.searchsorted(rows, in_pairs)
    n = n_passes(len(rows), len(some), len(busts), len(again), clip.n_layers, len(shares))
    print(forecast(n, seconds_per_pass(clip, data.images(rows[: heatmap.batch_size]))), flush=True)
    with progress.bar("forward passes", n) as passes:
        every, perturbed, redrawn, deleted = (
            CheckedImages(clip, data, part, heatmap.batch_size, passes)
            for part in (rows, rows[some], rows[again], rows[busts])
        )
        grids = every_map(every, seed)
        curve = perturb(perturbed, {name: maps[some] for name, maps in grids.items()}, shares)
        reference = grids["grad_eclip"][again]
        cascaded = randomise(redrawn, reference, seed)
        bust = delete_bust(deleted, {name: maps[busts] for name, maps in grids.items()}, shares, inference)
        found = measure(redrawn, reference, curve, cascaded)
    located = localise_maps(every, grids, inference)
    found = {"maps": {name: {**located[name], "bust_deletion": bust[name]} for name in grids}, **found}
    outs.write_metrics(FULL_FPATH, found)
    outs.write_metrics(METRICS_FPATH, {name: part for name, part in found.items() if name not in ("maps", "curves")})
    outs.write_table(CURVES_FPATH, curve)
    outs.write_table(CASCADE_FPATH, cascaded)
    drawing.draw(found, curve, cascaded, PLOT_FPATH)


if __name__ == "__main__":
    run_command(main)

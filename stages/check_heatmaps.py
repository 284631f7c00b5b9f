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
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

from stages.core import eclip, figures, localise
from stages.core.checks import deletion_insertion, randomisation
from stages.core.checks.rank_correlation import spearman
from stages.core.clip import vit
from stages.core.clip.readout import Readout, embedded_each
from stages.core.clip.vit import FrozenClip
from stages.core.data import dataset
from stages.core.data.choice import evenly
from stages.core.data.dataset import Dataset
from stages.core.paired import SHARE, Bounds, Pairs, difference_bounds
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
KINDS: tuple[deletion_insertion.Kind, ...] = ("deletion", "insertion")
BASELINES = ("centre_gaussian", "random")
N_MAPS = len(METHODS) + len(CONTRASTED) + len(BASELINES)
N_TIMED = 4  # images of a pass that is timed: enough for a large model, and a few seconds
GAUSSIAN_SPREAD = 0.25  # standard deviation, as a share of the side: a photographer's guess of where the subject is

Grids = np.ndarray  # [image, gh, gw]


class Audit:
    """Some images of the data set and the original model. Maps and readouts are computed batch by batch.

    clip: the original model. data: the data set. batch_size: number of images in one batch.
    rows: row numbers of the images in the data set's table (`data.table`), ascending.
    passes: progress bar that counts forward passes of one image each.
    labels: these rows of the data set's table, with a new index from 0.
    readout: the prompts of all emotions as the model sees them.
    truth: index of each image's true emotion among these prompts.
    own: unit-norm embedding of each image's own prompt, an array [image, embed]. The stage `heatmap` maps this text.
    """

    def __init__(self, clip: FrozenClip, data: Dataset, rows: np.ndarray, batch_size: int, passes: Any):
        self.clip, self.data, self.rows, self.batch_size, self.passes = clip, data, rows, batch_size, passes
        self.labels = data.table.iloc[self.rows].reset_index(drop=True)
        self.readout = Readout.from_prompts(clip, data.prompts.values())
        self.truth = torch.from_numpy(data.emotion_index(self.rows)).to(clip.device)
        self.own = embedded_each(clip, self.labels["prompt"].tolist())

    @property
    def others(self) -> torch.Tensor:
        """Mean embedding of the prompts of all emotions except the image's true one: an array [image, embed]."""
        n = len(self.readout.prompts)
        return (self.readout.prompts.sum(0) - self.readout.prompts[self.truth]) / (n - 1)

    def slices(self) -> list[slice]:
        """Split the images into batches. Returns a slice of the images for each batch, in order."""
        return [slice(start, start + self.batch_size) for start in range(0, len(self.rows), self.batch_size)]

    def explain(self, texts: torch.Tensor, model: torch.nn.Module | None = None, **options: Any) -> eclip.Explanation:
        """Compute heatmaps of all images: for each image, a map for each of k texts.

        texts: embeddings [k, image, embed]: unit-norm embeddings of texts, or differences of two such embeddings.
        model: the model to explain; the original one if not given.
        options: passed to `eclip.explain`: methods (the map methods), layers (the blocks to explain, counted from 1),
            single_head (True: one attention head, as in the published code).
        Returns the raw maps [image, k, gh, gw] by method, with gh rows and gw columns of patches. Returns also
        the cosine of each image with each text [image, k].
        Raises ExplainError if the formulas of a method do not apply to the model.
        """
        model = self.clip.model if model is None else model
        parts = []
        for part in self.slices():
            pixels = self.clip.pixels(self.data.images(self.rows[part]))
            parts.append(eclip.explain(model, pixels, texts[:, part], **options))
            self.passes.update(len(pixels))
        raw = {method: torch.cat([part.raw[method] for part in parts]) for method in parts[0].raw}
        return eclip.Explanation(raw, torch.cat([part.similarity for part in parts]))

    @torch.no_grad()
    def R(self, images: np.ndarray, part: slice) -> np.ndarray:
        """Compute R, the log-probability of the true emotion (nats), of changed images.

        images: the changed images as RGB pixels, in place of the images in `part`.
        part: which images of the audit were changed: a slice, such as one of `slices`.
        Returns a value for each image in `part`.
        """
        found = self.readout.score(self.clip.embed(self.clip.pixels(images)), self.truth[part]).cpu().numpy()
        self.passes.update(len(images))
        return found

    def along(
        self,
        grids: dict[str, Grids],
        kind: deletion_insertion.Kind,
        shares: Sequence[float],
        among: Bool[np.ndarray, "n gh gw"] | None = None,
    ) -> dict[str, Float[np.ndarray, "share n"]]:
        """Compute R while more and more patches of each image are hidden or shown, in the order of each map.

        R is the log-probability of the true emotion, nats.

        grids: maps [image, gh, gw] by name. A map has gh rows and gw columns of patches.
        kind: `deletion` greys patches out, the largest map values first. `insertion` starts from a grey image and shows
            patches in this order.
        shares: the shares of patches hidden or shown, from 0 to 1.
        among: True for each patch that may be hidden or shown, for example the patches in a region. All patches if not
            given.
        Returns, for each map, R in an array [share, image].
        """
        found = {name: np.empty((len(shares), len(self.rows)), np.float32) for name in grids}
        for part in self.slices():
            images, limits = self.data.images(self.rows[part]), None if among is None else among[part]
            ends: dict[float, np.ndarray] = {}
            for name, maps in grids.items():
                for i, share in enumerate(shares):
                    if (R := ends.get(share)) is None:
                        R = self.R(deletion_insertion.perturbed(images, maps[part], share, kind, limits), part)
                    if share in (0, 1):
                        ends[share] = R
                    found[name][i, part] = R
        return found

    def by_condition(self, values: np.ndarray, inference: Inference, bounds: Bounds | None = None) -> dict[str, Any]:
        """Average a value per image over the pairs of this audit, by condition.

        values: a value for each image of this audit. The audit must have both images of each of its pairs.
        inference: settings of the intervals.
        bounds: the smallest and the largest possible value, if there are any.
        Returns
            semi_nude, clothed    mean of the condition
            gap                   mean of clothed minus semi-nude: estimate, low, high (interval over women)
        """
        pairs = Pairs.from_images(self.data.table.iloc[self.rows])
        values = values[pairs.positions(self.rows)]
        means = {condition: float(part.mean()) for condition, part in pairs.split(values).items()}
        gap = pairs.interval(pairs.gap(values), inference, difference_bounds(bounds))
        return {**means, "gap": gap.as_metrics()}


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


def every_map(audit: Audit, seed: int) -> dict[str, Grids]:
    """Compute all kinds of map that the checks compare, for all images of `audit`.

    audit: the images, and the original model.
    seed: seed of the random maps.
    Returns arrays [image, gh, gw] by name. A map has gh rows and gw columns of patches:
        grad_eclip, attribution, legrad, attention         maps of four methods, for the image's own prompt
        grad_eclip_contrastive, attribution_contrastive    maps of two methods, for a difference of embeddings: the
                                                           image's own prompt minus the mean of the other emotions'
                                                           prompts
        centre_gaussian                                    baseline: a Gaussian in the middle of each image
        random                                             baseline: random values
    """
    raw = audit.explain(torch.stack([audit.own, audit.own - audit.others]), methods=METHODS).raw
    found = {str(method): raw[method][:, 0].cpu().numpy() for method in METHODS}
    found |= {f"{method}_contrastive": raw[method][:, 1].cpu().numpy() for method in CONTRASTED}
    shape = found["grad_eclip"].shape
    y, x = ((np.arange(side) + 0.5) / side - 0.5 for side in shape[1:])
    gaussian = np.exp(-(y[:, None] ** 2 + x**2) / (2 * GAUSSIAN_SPREAD**2))
    found["centre_gaussian"] = np.broadcast_to(gaussian, shape)
    found["random"] = np.random.default_rng(seed).random(shape)
    return found


def localise_maps(audit: Audit, grids: dict[str, Grids], inference: Inference) -> dict[str, dict]:
    """Measure how much of each map lies on bust and face.

    audit: the images, and the original model.
    grids: maps [image, gh, gw] by name, for the images of `audit`. A map has gh rows and gw columns of patches.
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
        coverage = audit.data.coverage(region, audit.rows, audit.clip.grid)
        for name, maps in grids.items():
            for score, bounds in ((localise.energy_lift, None), (localise.matched_area_iou, SHARE)):
                values = np.array([score(heat, mask) for heat, mask in zip(maps, coverage, strict=True)])
                metrics[name][f"{region}_{score.__name__}"] = audit.by_condition(values, inference, bounds)
    return metrics


def perturb(audit: Audit, grids: dict[str, Grids], shares: Sequence[float]) -> pd.DataFrame:
    """Compute deletion and insertion curves of each map.

    A curve is mean R while more and more patches are hidden or shown, the largest map values first. R is the
    log-probability of the true emotion, nats.

    audit: the images, and the original model.
    grids: maps [image, gh, gw] by name, for the images of `audit`. A map has gh rows and gw columns of patches.
    shares: the shares of patches hidden or shown, from 0 to 1.
    Returns a row per map, kind of curve, share and condition:
        method       name of the map
        curve        deletion (patches are greyed out) or insertion (patches are shown on a grey image)
        condition    semi_nude or clothed
        share        share of the patches hidden or shown
        R            mean over images
    """
    rows = []
    found = {kind: audit.along(grids, kind, shares) for kind in KINDS}
    for name in grids:
        for kind in KINDS:
            for share, R in zip(shares, found[kind][name], strict=True):
                by_condition = pd.Series(R).groupby(audit.labels["condition"]).mean()
                rows += [(name, kind, condition, share, float(mean)) for condition, mean in by_condition.items()]
    return pd.DataFrame(rows, columns=["method", "curve", "condition", "share", "R"])


def delete_bust(
    audit: Audit, grids: dict[str, Grids], shares: Sequence[float], inference: Inference
) -> dict[str, dict]:
    """Measure how R changes while the patches of the bust are greyed out in the order of each map.

    R is the log-probability of the true emotion, nats. The patches with the largest map values are greyed out first.
    The change of R is averaged over the share of bust patches greyed out, from none to all. A change above 0 means that
    the bust patches with large map values mislead the readout. A change below 0 means that the readout needs them.

    audit: the images, and the original model.
    grids: maps [image, gh, gw] by name, for the images of `audit`. A map has gh rows and gw columns of patches.
    shares: the shares of bust patches greyed out, from 0 to 1.
    inference: settings of the bootstrap.
    Returns, for each map:
        semi_nude, clothed    mean change over the images of the condition
        gap                   clothed minus semi-nude: estimate, low, high (interval over women)
    """
    bust = audit.data.coverage("bust", audit.rows, audit.clip.grid) >= INSIDE
    found = audit.along(grids, "deletion", shares, bust)
    return {name: audit.by_condition(deletion_insertion.area(R, shares) - R[0], inference) for name, R in found.items()}


def agreement(a: Grids, b: Grids) -> float:
    """Compute how well two sets of maps of the same images agree.

    a, b: maps [image, gh, gw]. A map has gh rows and gw columns of patches.
    Returns the mean over images of Spearman's correlation. The correlation of an image is computed over its patches. It
    counts as 0 if a map of this image is constant.
    """
    flat = (maps.reshape(len(maps), -1) for maps in (a, b))
    return float(np.nan_to_num(spearman(*flat)).mean())


def randomise(audit: Audit, reference: Grids, seed: int) -> pd.DataFrame:
    """Randomise the vision tower from the top down, and compare Grad-ECLIP's maps with those of the original model.

    Each step replaces one more group of parameters by random values. The maps are then computed again.

    audit: the images, and the original model.
    reference: Grad-ECLIP's maps [image, gh, gw] of the original model, for the images of `audit`. A map has gh rows and
        gw columns of patches.
    seed: seed of the random parameters.
    Returns a row per step:
        randomised_down_to    the last group randomised: nothing, projection, block <i>, or embeddings
        agreement             rank correlation over patches with the original maps, mean over images
    """
    rows = [("nothing", 1.0)]
    for name, model in randomisation.randomised(audit.clip.model, seed):
        raw = audit.explain(audit.own[None], model).raw["grad_eclip"]
        rows.append((name, agreement(raw[:, 0].cpu().numpy(), reference)))
    return pd.DataFrame(rows, columns=["randomised_down_to", "agreement"])


def measure(audit: Audit, reference: Grids, curve: pd.DataFrame, cascaded: pd.DataFrame) -> dict[str, dict]:
    """Summarise four checks of the maps.

    An agreement is a rank correlation of two maps over patches, mean over images. R is the log-probability of the true
    emotion, nats.

    audit: the images, and the original model.
    reference: Grad-ECLIP's maps [image, gh, gw] of the original model, for the images of `audit`. A map has gh rows and
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
    another = audit.readout.prompts[(audit.truth + 1) % len(audit.readout.prompts)]
    ours = audit.explain(torch.stack([audit.own, another]))
    published = audit.explain(audit.own[None], single_head=True)
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


def draw(metrics: dict, curve: pd.DataFrame, cascaded: pd.DataFrame, fpath: Path) -> None:
    """Draw the checks in four panels, and write the figure to `fpath`.

    Upper row: deletion and insertion curves of each map. Lower left: gap (clothed minus semi-nude) of the energy lift
    on the bust, by map. The energy lift is the share of the map's positive mass that lies on the bust, divided by the
    bust's share of the image area. Lower right: agreement of Grad-ECLIP's maps with the original ones while parameters
    are randomised.

    metrics: the key maps is drawn. For each map this key has bust_energy_lift with gap (estimate, low, high).
    curve: from `perturb`, with the columns method (name of the map), curve (deletion or insertion), share (of patches)
        and R (log-probability of the true emotion, nats).
    cascaded: from `randomise`, with the columns randomised_down_to and agreement (rank correlation over patches).
    """
    figure, axes = figures.panels(
        2, "Can the heatmaps be believed? (original model, confirmation women)", rows=2, cell=(6.2, 3.6)
    )
    names = list(metrics["maps"])
    colours = dict(zip(names, (*figures.SERIES, figures.GREY, "black"), strict=False))
    styles = {name: ":" if name in BASELINES else "--" if name.endswith("contrastive") else "-" for name in names}
    for ax, kind in zip(axes[0], KINDS, strict=True):
        for name in names:
            part = curve[(curve["method"] == name) & (curve["curve"] == kind)].groupby("share")["R"].mean()
            ax.plot(part.index, part, styles[name], color=colours[name])
        ax.set(
            xlabel=f"share of patches {'hidden' if kind == 'deletion' else 'shown'}",
            ylabel="mean R (nats)",
            title=kind.capitalize(),
        )
    gaps = [metrics["maps"][name]["bust_energy_lift"]["gap"] for name in names]
    figures.interval_bars(
        axes[1, 0], [name.replace("_", " ") for name in names], gaps, [colours[name] for name in names]
    )
    axes[1, 0].axvline(0, color="black", lw=0.7)
    axes[1, 0].set(xlabel="bust-lift gap, clothed minus semi-nude", title="The published endpoint, by method")
    axes[1, 1].plot(range(len(cascaded)), cascaded["agreement"], "o-", color=figures.BLUE)
    axes[1, 1].set_xticks(range(len(cascaded)), cascaded["randomised_down_to"], rotation=25, ha="right", fontsize=8)
    axes[1, 1].axhline(0, color="black", lw=0.7)
    axes[1, 1].set(
        ylabel="rank correlation with the map",
        ylim=(min(0, cascaded["agreement"].min()) - 0.1, 1.05),
        title="Parameters randomised from the top down to",
    )
    lines = {name.replace("_", " "): {"color": colours[name], "linestyle": styles[name]} for name in names}
    figures.line_legend(figure, lines)
    figures.save(figure, fpath)


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
        audit, perturbed, redrawn, deleted = (
            Audit(clip, data, part, heatmap.batch_size, passes) for part in (rows, rows[some], rows[again], rows[busts])
        )
        grids = every_map(audit, seed)
        curve = perturb(perturbed, {name: maps[some] for name, maps in grids.items()}, shares)
        reference = grids["grad_eclip"][again]
        cascaded = randomise(redrawn, reference, seed)
        bust = delete_bust(deleted, {name: maps[busts] for name, maps in grids.items()}, shares, inference)
        found = measure(redrawn, reference, curve, cascaded)
    located = localise_maps(audit, grids, inference)
    found = {"maps": {name: {**located[name], "bust_deletion": bust[name]} for name in grids}, **found}
    outs.write_metrics(FULL_FPATH, found)
    outs.write_metrics(METRICS_FPATH, {name: part for name, part in found.items() if name not in ("maps", "curves")})
    outs.write_table(CURVES_FPATH, curve)
    outs.write_table(CASCADE_FPATH, cascaded)
    draw(found, curve, cascaded, PLOT_FPATH)


if __name__ == "__main__":
    run_command(main)

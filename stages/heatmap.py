"""Grad-ECLIP maps of confirmation women (women held out): original model, SAE spliced in, latents edited.

reads    data/selection, data/dataset, data/clip, data/activations
writes   data/heatmaps.zarr (raw signed maps [arm, image, gh, gw]), metrics/heatmap.json (estimates),
         metrics/full/heatmap.json (with intervals), plots/heatmap.csv (scores of each image), plots/heatmap_iou.csv
         (mean IoU at each threshold), plots/heatmap.png (contact sheet), plots/heatmap_pairs.png,
         plots/heatmap_strengths (some pairs, with maps and probabilities at several strengths of the edit)
claims   how much of the map for the true emotion lies on the bust and on the face, in both conditions, with chance
         levels and intervals over women. A change of the map alone does not show that the bias shrank: `ablate`
         tests the readout

An arm is a change of the residual stream after the block of the chosen SAE: none (original), the SAE's reconstruction
of it (reconstructed), or the edit of the chosen latents (edited).

    torchrun --nproc-per-node 8 -m stages.heatmap      # eight processes share the images
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from stages.core import eclip, figures, localise
from stages.core.clip import vit
from stages.core.data import dataset
from stages.core.data.choice import evenly
from stages.core.data.dataset import Dataset
from stages.core.figures import Figure
from stages.core.latents import selection
from stages.core.latents.spliced_clip import Arm, SplicedClip, original
from stages.core.paired import SHARE, Bounds, Pairs
from stages.core.run import arrays, outs, params
from stages.core.run.compute import ALONE, join_ranks, leave_ranks
from stages.core.run.errors import run_command
from stages.core.run.labels import CONDITIONS, REGIONS
from stages.core.schema import Compute, Edit, Heatmap, Inference

DATASET_DPATH, CLIP_DPATH, ACTIVATIONS_DPATH = Path("data/dataset"), Path("data/clip"), Path("data/activations")
SELECTION_DPATH, HEATMAPS_DPATH = Path("data/selection"), Path("data/heatmaps.zarr")
METRICS_FPATH, FULL_FPATH = Path("metrics/heatmap.json"), Path("metrics/full/heatmap.json")
TABLE_FPATH, IOU_FPATH = Path("plots/heatmap.csv"), Path("plots/heatmap_iou.csv")
SHEET_FPATH, PAIRS_FPATH = Path("plots/heatmap.png"), Path("plots/heatmap_pairs.png")
STRENGTHS_DPATH, STRENGTHS = Path("plots/heatmap_strengths"), (0.0, 0.25, 0.5, 0.75, 1.0)
THRESHOLDS = tuple(i / 10 for i in range(1, 10))
IN_METRICS: dict[str, Bounds | None] = {"energy_lift": None, "matched_area_iou": SHARE}
"""Scores in the metrics, and the bounds of their values. The other scores are in plots/heatmap.csv."""


def maps(spliced: SplicedClip, rows: np.ndarray, arm: Arm) -> tuple[np.ndarray, np.ndarray]:
    """Compute a Grad-ECLIP map of each image, while an arm changes the model.

    The text of the map is the image's own prompt. This prompt names the image's true emotion.

    spliced: CLIP with the SAE. It also gives the data set.
    rows: row numbers of the images in the data set's table (`spliced.data.table`).
    arm: a function that changes the residual stream after the SAE's block, such as the edit.
    Returns two arrays: the raw signed maps [image, gh, gw], with gh rows and gw columns of patches; and the cosine of
    each image with its own prompt [image].
    Raises ExplainError if the formulas of Grad-ECLIP do not apply to the model.
    """

    def explain(some: np.ndarray) -> tuple[Tensor, Tensor]:
        pixels, text = spliced.clip.pixels(spliced.data.images(some)), spliced.own_text(some)
        with spliced.arm_in_place(arm, some):
            found = eclip.explain(spliced.clip.model, pixels, text[None])
        return found.raw["grad_eclip"][:, 0], found.similarity[:, 0]

    grids, cosines = spliced.compute_by_batch(rows, explain)
    return grids, cosines


def score(
    grids: dict[str, np.ndarray],
    cosines: dict[str, np.ndarray],
    coverage: dict[str, np.ndarray],
    data: Dataset,
    rows: np.ndarray,
) -> pd.DataFrame:
    """Score each map against the bust mask and the face mask of its image.

    grids: for each arm (an intervention on the residual stream), the maps [image, gh, gw] of the images in `rows`. A
        map has gh rows and gw columns of patches.
    cosines: for each arm, the cosine of each image with its own prompt [image].
    coverage: the masks: for each region (bust, face), the share of each patch inside the region [image, gh, gw].
    data: the data set, which gives the labels of the images.
    rows: row numbers of the images in the data set's table (`data.table`).
    Returns a row per region, arm and image:
        arm, region                           name of the arm, and name of the region
        row                                   row number of the image in `data.table`
        identity, condition, emotion, pair    labels of the image
        cosine                                cosine of the image with its own prompt
        degenerate                            1 if the map has no positive value, or the mask is empty or full; else 0
        energy_lift                           share of the map's positive mass that lies in the mask, divided by the
                                              mask's share of the image area
        matched_area_iou, threshold_iou, relevance_mass, rank_accuracy, pixel_auc, pointing_hit
                                              further scores (`localise.scores`)
        chance_<score>                        chance level of each score except threshold_iou
    """
    table = data.table.iloc[rows]
    records = []
    for region, masks in coverage.items():
        for arm, maps_of_arm in grids.items():
            for i, (heat, mask) in enumerate(zip(maps_of_arm, masks, strict=True)):
                labels = table.iloc[i]
                chance = {f"chance_{key}": value for key, value in localise.chance(mask).items()}
                records.append(
                    {
                        "arm": arm,
                        "region": region,
                        "row": int(rows[i]),
                        "identity": labels["identity"],
                        "condition": labels["condition"],
                        "emotion": labels["emotion"],
                        "pair": int(labels["pair"]),
                        "cosine": float(cosines[arm][i]),
                        "degenerate": int(localise.degenerate(heat, mask)),
                        **localise.scores(heat, mask),
                        **chance,
                    }
                )
    return pd.DataFrame(records)


def iou_over_thresholds(
    grids: dict[str, np.ndarray], coverage: dict[str, np.ndarray], condition: np.ndarray
) -> pd.DataFrame:
    """Compute the mean IoU (intersection over union) of maps and regions, for several thresholds of the maps.

    A map is rescaled so that its smallest value is 0 and its largest value is 1. The thresholds are .1, .2, ... .9.

    grids: for each arm (an intervention on the residual stream), the maps [image, gh, gw]. A map has gh rows and gw
        columns of patches.
    coverage: for each region (bust, face), the share of each patch inside the region [image, gh, gw], for the same
        images.
    condition: condition of each image, semi_nude or clothed.
    Returns a row per region, arm, threshold and condition: arm, region, condition, threshold, iou (mean over images).
    """
    records = []
    for region, masks in coverage.items():
        for arm, heats in grids.items():
            for threshold in THRESHOLDS:
                iou = np.array([localise.threshold_iou(h, m, threshold) for h, m in zip(heats, masks, strict=True)])
                records += [(arm, region, c, threshold, iou[condition == c].mean()) for c in CONDITIONS]
    return pd.DataFrame(records, columns=["arm", "region", "condition", "threshold", "iou"])


def measure(table: pd.DataFrame, pairs: Pairs, inference: Inference) -> dict[str, dict]:
    """Average two scores of the maps over pairs, by arm and region, with intervals over women.

    The energy lift is the share of a map's positive mass that lies on the region, divided by the region's share of the
    image area. The matched-area IoU compares the region with the patches of the largest map values, as many as the
    region has area.

    table: a row per region, arm (an intervention on the residual stream) and image of the pairs, from `score`. Columns
        used: arm, region, row, degenerate, energy_lift, matched_area_iou, and the chance levels chance_<score>.
    pairs: the pairs of images.
    inference: settings of the intervals.
    Returns, for each arm, the keys <region>_energy_lift and <region>_matched_area_iou, for bust and face. Each key
    holds:
        semi_nude, clothed    mean of the condition: estimate, low, high
        gap                   clothed minus semi-nude: estimate, low, high
        chance                mean chance level
    A further key, images, holds degenerate. This is the number of images with a map, in any arm, that has no positive
    value, or with a mask, of any region, that is empty or full.
    """
    n_degenerate = table.loc[table["degenerate"] > 0, "row"].nunique()
    metrics: dict[str, dict] = {"images": {"degenerate": n_degenerate}}
    for (arm, region), part in table.groupby(["arm", "region"], sort=False):
        by_image = part.set_index("row").loc[pairs.rows]
        for name, bounds in IN_METRICS.items():
            found = pairs.summary(by_image[name].to_numpy(), inference, bounds)
            chance = float(part[f"chance_{name}"].mean())
            metrics.setdefault(arm, {})[f"{region}_{name}"] = {**found, "chance": chance}
    return metrics


def headline(found: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Choose the main estimates for the metrics file, without their intervals.

    The energy lift is the share of a map's positive mass that lies on the bust, divided by the bust's share of the
    image area. The matched-area IoU compares the bust with the patches of the largest map values, as many as the bust
    has area.

    found: the result of `measure`: for each arm (an intervention on the residual stream) and each <region>_<score>, the
        means of the score. A further key, images, holds the number of degenerate images.
    Returns three keys:
        images                       the same as in `found`
        bust_energy_lift_gap         for each arm, gap (clothed minus semi-nude) of the energy lift on the bust
        bust_matched_area_iou_gap    for each arm, gap (clothed minus semi-nude) of the matched-area IoU with the bust
    """
    arms = [arm for arm in found if arm != "images"]
    return {
        "images": found["images"],
        **{
            f"bust_{name}_gap": {arm: found[arm][f"bust_{name}"]["gap"]["estimate"] for arm in arms}
            for name in IN_METRICS
        },
    }


def drawn(grids: dict[str, np.ndarray], latents: list[int]) -> dict[str, np.ndarray]:
    """Choose the arms to draw. Without latents to edit, the edited model is the original one and is left out.

    grids: the maps of each arm, by name. latents: the latents that are edited.
    """
    return {name: found for name, found in grids.items() if name != "edited" or latents}


def shown_images(data: Dataset, n_pairs: int) -> np.ndarray:
    """Choose pairs to show, evenly spaced among those of confirmation women (women held out from choosing).

    n_pairs: number of pairs; all if there are no more.
    Returns row numbers of images in the data set's table, [pair, 2], the semi-nude image first.
    """
    pairs = Pairs.from_images(data.table, "confirmation").table
    return pairs.iloc[evenly(len(pairs), n_pairs)][list(CONDITIONS)].to_numpy()


def draw_sheet(
    spliced: SplicedClip,
    rows: np.ndarray,
    grids: dict[str, np.ndarray],
    cosines: dict[str, np.ndarray],
    n_pairs: int,
    fpath: Path,
) -> None:
    """Draw some pairs of confirmation women (women held out from choosing), and write the sheet to `fpath`.

    Each row of the sheet shows one image. The first column is the picture. Each other column is the map of one arm (an
    intervention on the residual stream) over the picture, with the cosine of image and prompt in the title.

    spliced: CLIP with the SAE. It also gives the data set, with pictures and masks.
    rows: for each image of `grids` and `cosines`, its row number in the data set's table (`spliced.data.table`).
    grids: for each arm, the maps [image, gh, gw]. A map has gh rows and gw columns of patches.
    cosines: for each arm, the cosine of each image with its own prompt [image].
    n_pairs: number of pairs to draw, evenly spaced among all pairs.
    """
    images = shown_images(spliced.data, n_pairs).ravel().tolist()
    position = {row: i for i, row in enumerate(rows)}
    figure, axes = figures.grid(
        len(images), 1 + len(grids), "Where CLIP looks for the true emotion (Grad-ECLIP; bust outlined)"
    )
    bust = spliced.data.mask("bust", np.array(images))
    for r, row in enumerate(images):
        labels = spliced.data.table.iloc[row]
        picture = spliced.data.images(np.array([row]))[0]
        figures.picture(axes[r, 0], picture, bust=bust[r])
        axes[r, 0].set_title(f"{figures.CONDITION_LABELS[labels['condition']]}, {labels['emotion']}")
        for c, arm in enumerate(grids, 1):
            figures.overlay(axes[r, c], picture, grids[arm][position[row]], bust=bust[r])
            axes[r, c].set_title(f"{arm}, cos {cosines[arm][position[row]]:.2f}")
    figures.save(figure, fpath)


def draw_pairs(table: pd.DataFrame, fpath: Path) -> None:
    """Draw each woman's energy lift on the bust in both conditions, a panel per arm, and write the figure to `fpath`.

    The energy lift is the share of a map's positive mass that lies on the bust, divided by the bust's share of the
    image area. Chance is 1. The arms are the original model, the SAE spliced in, and the latents edited. A line joins
    the two conditions of a woman. A black bar is the mean over women.

    table: a row per region, arm and image, from `score`, with the columns region, arm, identity, condition and
        energy_lift.
    """
    arms = [arm for arm in ("original", "reconstructed", "edited") if arm in set(table["arm"])]
    figure, axes = figures.panels(
        len(arms), "Bust lift of the heatmap, mean over the pairs of each woman (1 = chance)", cell=(3.2, 3.4)
    )
    for ax, arm in zip(axes[0], arms, strict=True):
        part = table[(table["arm"] == arm) & (table["region"] == "bust")]
        wide = part.groupby(["identity", "condition"])["energy_lift"].mean().unstack()
        ax.plot([0, 1], wide[list(CONDITIONS)].T, color=figures.GREY, lw=0.7, alpha=0.6)
        for x, condition in enumerate(CONDITIONS):
            colour = figures.CONDITION_COLOURS[condition]
            ax.plot([x] * len(wide), wide[condition], "o", color=colour, ms=4)
            ax.plot([x - 0.14, x + 0.14], [wide[condition].mean()] * 2, color="black", lw=2.4)
        ax.axhline(1, color="black", lw=0.7, ls=":")
        ax.set_xticks([0, 1], [figures.CONDITION_LABELS[condition] for condition in CONDITIONS])
        ax.set(title=arm, xlim=(-0.35, 1.35), ylabel="energy lift on the bust" if ax is axes[0, 0] else "")
    top = max(ax.get_ylim()[1] for ax in axes[0])
    for ax in axes[0]:
        ax.set_ylim(0, top)
    figures.save(figure, fpath)


def at_strength(arm: Arm, strength: float) -> Arm:
    """Return an arm that makes a share of the change that another arm makes.

    strength: the share; 0 changes nothing, and 1 is the other arm.
    """
    return lambda batch: batch.tokens + strength * (arm(batch) - batch.tokens)


def draw_strengths(spliced: SplicedClip, edited: Arm, n_pairs: int, directory: Path) -> None:
    """Draw some pairs at several strengths of the edit (STRENGTHS), for a page on which one chooses among them.

    spliced: CLIP with the SAE. It also gives the data set.
    edited: the arm that edits the chosen latents.
    n_pairs: number of pairs, evenly spaced among those of confirmation women.
    directory: gets a picture for each pair and strength, `<pair>_<strength>.png`, both counted from 0, and shown.json:
        pairs (what to call each), strengths, and says (for each pair and strength, the probabilities in words).
    """
    shown = shown_images(spliced.data, n_pairs)
    says: list[list[str]] = [[] for _ in shown]
    with outs.atomic_output(directory) as unfinished:
        unfinished.mkdir()
        for j, strength in enumerate(STRENGTHS if len(shown) else ()):
            arm, rows = at_strength(edited, strength), shown.ravel()
            grids, _ = maps(spliced, rows, arm)
            probable = probabilities(spliced, rows, arm)
            for i, twins in enumerate(shown):
                both = slice(2 * i, 2 * i + 2)
                figure = draw_strength(spliced.data, twins, grids[both], probable[both])
                figures.save(figure, unfinished / f"{i}_{j}.png")
                says[i].append(words(spliced.data, twins, probable[both]))
        names = [f"{row['identity']}, {row['emotion']}" for _, row in spliced.data.table.iloc[shown[:, 0]].iterrows()]
        described = {"pairs": names, "strengths": STRENGTHS, "says": says}
        (unfinished / "shown.json").write_text(json.dumps(described, indent=1), encoding="utf-8")


def probabilities(spliced: SplicedClip, rows: np.ndarray, arm: Arm) -> np.ndarray:
    """Compute how probable CLIP finds each emotion while an arm changes the model: an array [image, emotion].

    rows: row numbers of the images in the data set's table.
    """
    embedded = torch.from_numpy(spliced.embeddings(rows, arm)).to(spliced.clip.device)
    return spliced.readout.log_probabilities(embedded).exp().cpu().numpy()


def words(data: Dataset, twins: np.ndarray, probable: np.ndarray) -> str:
    """Say the probabilities of the emotions for both twins, the true emotion first.

    twins: row numbers of the two images in the data set's table. probable: probabilities [image, emotion].
    """
    true = int(data.emotion_index(twins)[0])
    order = [true, *(i for i in range(len(data.emotions)) if i != true)]
    parts = []
    for row, of_image in zip(twins, probable, strict=True):
        listed = ", ".join(f"{data.emotions[i]} {100 * of_image[i]:.0f} %" for i in order)
        parts.append(f"{figures.CONDITION_LABELS[data.table['condition'].iloc[row]]}: {listed}")
    return "; ".join(parts)


def draw_strength(data: Dataset, twins: np.ndarray, grids: np.ndarray, probable: np.ndarray) -> Figure:
    """Draw the maps of both twins, and how probable each emotion is to CLIP; the true one has the colour of its twin.

    twins: row numbers of the two images in the data set's table, the semi-nude image first.
    grids: their maps [image, gh, gw]. probable: probabilities [image, emotion].
    """
    figure = figures.pyplot().figure(figsize=(9.4, 2.5))
    axes = figure.subplots(1, 4, width_ratios=[1, 1.1, 1, 1.1])
    bust, true = data.mask("bust", twins), int(data.emotion_index(twins)[0])
    for i, row in enumerate(twins):
        condition = data.table["condition"].iloc[row]
        heat, bars = axes[2 * i : 2 * i + 2]
        figures.overlay(heat, data.images(np.array([row]))[0], grids[i], bust=bust[i])
        heat.set_axis_off()
        heat.set_title(figures.CONDITION_LABELS[condition], fontsize=9)
        colours = [
            figures.CONDITION_COLOURS[condition] if e == true else figures.GREY for e in range(probable.shape[1])
        ]
        bars.barh(range(probable.shape[1]), probable[i], color=colours)
        bars.set_yticks(range(probable.shape[1]), list(data.emotions), fontsize=9)
        bars.set(xlim=(0, 1), ylim=(probable.shape[1] - 0.5, -0.5), xlabel="probability")
    return figure


def save(
    directory: Path, rows: np.ndarray, grids: dict[str, np.ndarray], cosines: dict[str, np.ndarray], layer: int
) -> None:
    """Write the maps as a Zarr group to `directory`.

    rows: row numbers of the images in the data set's table.
    grids: for each arm (an intervention on the residual stream), the maps [image, gh, gw]. A map has gh rows and gw
        columns of patches.
    cosines: for each arm, the cosine of each image with its own prompt [image].
    layer: the block that the maps explain, counted from 1.

    The group has three arrays: raw [arm, image, gh, gw], cosine [arm, image] and row [image]. The attributes of the
    group are arms (names in order) and explained_block.
    """
    with outs.atomic_output(directory) as unfinished:
        group = arrays.create_group(unfinished)
        group.create_array("raw", data=np.stack(list(grids.values())))
        group.create_array("cosine", data=np.stack(list(cosines.values())))
        group.create_array("row", data=rows)
        group.attrs.update({"arms": list(grids), "explained_block": layer})


def main() -> None:
    params.command_line(__doc__).parse_args()
    compute, inference, edit, config = params.load(Compute, Inference, Edit, Heatmap)
    clip, data = vit.load(CLIP_DPATH, compute), dataset.load(DATASET_DPATH)
    chosen, ranks = selection.load(SELECTION_DPATH), join_ranks(clip.device)
    spliced = SplicedClip.from_selection(chosen, clip, data, ACTIVATIONS_DPATH, config.batch_size, ranks)
    rows, pairs = data.rows("confirmation"), Pairs.from_images(data.table, "confirmation")
    arms = {
        "original": original,
        "reconstructed": spliced.reconstructed,
        "edited": spliced.selected_edit_arm(chosen, edit),
    }
    explained = {name: maps(spliced, rows, arm) for name, arm in arms.items()}
    if ranks.first:
        grids, cosines = ({name: found[i] for name, found in explained.items()} for i in (0, 1))
        save(HEATMAPS_DPATH, rows, grids, cosines, clip.n_layers)
        coverage = {region: data.coverage(region, rows, clip.grid) for region in REGIONS}
        table = score(grids, cosines, coverage, data, rows)
        outs.write_table(TABLE_FPATH, table)
        outs.write_table(IOU_FPATH, iou_over_thresholds(grids, coverage, data.table["condition"].to_numpy()[rows]))
        found = measure(table, pairs, inference)
        outs.write_metrics(FULL_FPATH, found)
        outs.write_metrics(METRICS_FPATH, headline(found))
        shown = drawn(grids, chosen.latents.tolist())
        draw_sheet(spliced, rows, shown, cosines, config.n_shown, SHEET_FPATH)
        draw_pairs(table[table["arm"].isin(list(shown))], PAIRS_FPATH)
    leave_ranks()
    if ranks.first:
        alone = replace(spliced, ranks=ALONE)
        draw_strengths(alone, arms["edited"], config.n_shown if len(chosen.latents) else 0, STRENGTHS_DPATH)


if __name__ == "__main__":
    run_command(main)

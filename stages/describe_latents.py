"""The chosen latents, and some of the other list for contrast -> a card that describes each latent.

reads    data/selection, data/selection_by_image, data/dataset, data/clip, data/activations
writes   plots/describe_latents.csv (a row per card), plots/describe_latents.png (the cards),
         metrics/describe_latents.json
claims   what the edited latents encode, on confirmation women (women held out): the condition, the emotion and its
         intensity, the woman or, in the planted world, the colour of the top. In the planted world also the rank of
         the planted feature. The gaps on a card are those by which the latent was chosen, from discovery women (women
         used for choosing)

There are two lists of latents. A bias latent has an effect on the readout R (log-probability of the true emotion) that
harms semi-nude women; a perception latent is more active on them. A gap is clothed minus semi-nude image of a pair. In
the planted world portraits are drawn, and the captions that train the demo CLIP tie the emotion of semi-nude women to
the colour of their tops, with a chosen probability.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd

from stages.core import figures
from stages.core.clip import vit
from stages.core.data import dataset
from stages.core.description import cards, label_association
from stages.core.description.cards import ConfirmationImages
from stages.core.figures import Axes
from stages.core.latents import selection
from stages.core.latents.lists import COLUMNS
from stages.core.latents.selection import Selection
from stages.core.latents.spliced_clip import SplicedClip
from stages.core.run import outs, params
from stages.core.run.errors import run_command
from stages.core.run.labels import CLOTHED, PLANTED, SEMI_NUDE
from stages.core.schema import Compute, DescribeLatents, Inference, LatentList

DATASET_DPATH, CLIP_DPATH, ACTIVATIONS_DPATH = Path("data/dataset"), Path("data/clip"), Path("data/activations")
SELECTION_DPATH, BY_IMAGE_DPATH = Path("data/selection"), Path("data/selection_by_image")
METRICS_FPATH, TABLE_FPATH = Path("metrics/describe_latents.json"), Path("plots/describe_latents.csv")
SHEET_FPATH = Path("plots/describe_latents.png")
POOLING_LABELS = {"cls": "class token", "max": "largest patch"}
GAP_LABELS = {"ranked": "net gain {} nats", "bias": "effect gap {} nats", "perception": "activation gap {}"}
SHIFTS = {SEMI_NUDE: -0.12, CLOTHED: 0.12}  # of the dots, to the left and right of their tick
TEXT_WIDTH = 54  # characters on a line of a card
CARD_WIDTH, CARD_HEIGHT = 9.4, 4.2  # inches: at the width of the report, text has its full size
BRIGHT = "(bright: patches where the latent is active)"


def listed(chosen: Selection, n_other: int) -> pd.DataFrame:
    """List the latents to describe: the edited latents, then the strongest latents of a list that is not edited.

    That list is `perception`: the latent is more active on semi-nude women. If perception latents are edited, it is
    `bias`: the latent's effect on the emotion readout harms the condition that is read worse.

    chosen: both lists, and the latents to edit.
    n_other: number of latents of the list that is not edited.
    Returns a row per latent:
        latent, step       index of the latent, and the step of the search that found the latent
        mean, low, high    mean gap and its interval. For `bias`: gap of the effect on the log-probability of the true
                           emotion, nats. For `ranked`: net gain of editing it, nats, to first order, without an
                           interval. For `perception`: gap of the activation
        p_max_t            family-wise p-value of this gap; 1 for `ranked`
        list               ranked, bias or perception
        edited             1 if the latent is edited, else 0
    """
    other: LatentList = "bias" if chosen.edited_list == "perception" else "perception"
    contrast = chosen.lists[other]
    contrast = contrast[~contrast["latent"].isin(chosen.latents)][:n_other].assign(list=other, edited=0)
    edited = chosen.edited[COLUMNS].assign(list=chosen.edited_list, edited=1)
    return pd.concat([edited, contrast], ignore_index=True)


def describe(
    spliced: SplicedClip, chosen: Selection, held_out: ConfirmationImages, config: DescribeLatents
) -> pd.DataFrame:
    """Describe each latent of `listed`, by activation on confirmation images and by decoder direction.

    spliced: CLIP with the chosen SAE. chosen: both lists of latents, and the latents to edit.
    held_out: the images of confirmation women (held out from choosing), with each latent's activations.
    config: numbers of latents, images, neighbours and prompts to name, and the vocabulary of prompts.
    Returns a row per latent: the columns of `listed`, and those of `cards.described`.
    Raises ParamsError if a prompt of the vocabulary names a column that the images do not have.
    """
    table = listed(chosen, config.n_other)
    described = cards.described(spliced, chosen, held_out, table["latent"].to_numpy(), config)
    return pd.concat([table, described.reset_index(drop=True)], axis=1)


def measure(table: pd.DataFrame, chosen: Selection, held_out: ConfirmationImages) -> dict[str, dict]:
    """Summarise the described latents for a metrics file.

    The monosemanticity of a latent says how alike the images are that activate the latent: the mean cosine of the
    embeddings of two images, weighted by both activations.

    table: a row per latent, from `describe`.
    chosen: the latents to edit, and the ranking of all latents.
    held_out: the images of confirmation women (held out from choosing), with each latent's activations.
    Returns a dictionary of dictionaries. A detector is the latent that best separates one colour of the top from the
    other colours. planted_feature is absent if the images have no label colour.
        edited_latents     encode_<label>: share of the edited latents that encode this label; empty if none is edited
        monosemanticity    bias_latents, perception_latents: mean over the described latents of this list.
                           chance: mean cosine of all pairs of images
        planted_feature    rank_<colour>: rank of the colour's detector among all latents; the most harmful to semi-nude
                           women has rank 1. best_rank, worst_rank: smallest and largest of these ranks.
                           least_share: smallest share of a detector's variance that its colour explains (epsilon^2).
                           A detector is the best of all latents, so the share overrates it.
                           share_edited: share of the detectors that are edited; absent if no latent is edited
    """
    edited = table[table["edited"] == 1]
    labels = label_association.judged_labels(held_out.images)
    metrics: dict[str, dict] = {
        "edited_latents": {
            f"encode_{label}": float((edited["encodes"] == label).mean()) for label in labels if len(edited)
        },
        "monosemanticity": {
            **{f"{kind}_latents": float(part.mean()) for kind, part in table.groupby("list")["monosemanticity"]},
            "chance": label_association.mean_cosine(held_out.embeddings),
        },
    }
    if PLANTED in held_out.images:
        found = label_association.detectors(held_out.pooled, held_out.images, PLANTED, chosen.ranked_once)
        metrics["planted_feature"] = {
            "best_rank": int(found["rank"].min()),
            "worst_rank": int(found["rank"].max()),
            **{f"rank_{row[PLANTED]}": int(row["rank"]) for _, row in found.iterrows()},
            "least_share": float(found["share"].min()),
            **({"share_edited": float(found["latent"].isin(chosen.latents).mean())} if len(edited) else {}),
        }
    return metrics


def draw(
    spliced: SplicedClip,
    table: pd.DataFrame,
    held_out: ConfirmationImages,
    inference: Inference,
    config: DescribeLatents,
    fpath: Path,
) -> None:
    """Draw a card per latent, one below the other, and write the figure to `fpath`.

    A card has three parts. Above: the text of the latent's row in `table`, and the mean activation by condition and
    label with intervals over women. Below: the images that activate the latent most.

    spliced: CLIP with the chosen SAE. It gives the pictures and the activation on each patch.
    table: a row per latent, from `describe`. Not all edited latents are drawn, only the first `config.n_shown`. All
        latents that are not edited are drawn.
    held_out: the images of confirmation women (women held out from choosing), with each latent's activations.
    inference: settings of the bootstrap intervals.
    config: `n_shown` is the number of edited latents to draw. `n_images` is the largest number of images on a card.
    """
    shown = pd.concat([table[table["edited"] == 1][: config.n_shown], table[table["edited"] == 0]])
    figure = figures.pyplot().figure(figsize=(CARD_WIDTH, CARD_HEIGHT * max(len(shown), 1) + 0.6))
    figure.suptitle(_title(shown))
    chance = label_association.mean_cosine(held_out.embeddings)
    places = np.atleast_1d(figure.subfigures(max(len(shown), 1), 1))
    for i, (place, (_, card)) in enumerate(zip(places, shown.iterrows(), strict=False)):
        values = held_out.activation(card["latent"], card["pooling"])
        above, below = place.subfigures(2, 1, height_ratios=[1, 1])
        text, activation = above.subplots(1, 2, width_ratios=[1.1, 1])
        pictures = below.subplots(1, config.n_images, squeeze=False)[0]
        for ax in (text, *pictures):
            ax.set_axis_off()
        _write(text, card, chance)
        _draw_activation(activation, values, held_out.images, POOLING_LABELS[card["pooling"]], inference)
        if i == 0:
            activation.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize=9)
        _draw_images(pictures, spliced, card, held_out, held_out.top(values, config.n_images))
    figures.save(figure, fpath)


def _title(shown: pd.DataFrame) -> str:
    if not len(shown):
        return "No latents found"
    if not shown["edited"].any():
        return "No latent was edited. Latents that differ by condition, on confirmation women\n" + BRIGHT
    return "Latents chosen on discovery women, shown on confirmation women\n" + BRIGHT


def _write(ax: Axes, card: pd.Series, chance: float) -> None:
    tested = card["list"] != "ranked"
    interval = f" [{card['low']:+.3f}, {card['high']:+.3f}]" if tested else ""
    gap = GAP_LABELS[card["list"]].format(f"{card['mean']:+.3f}{interval}")
    encodes = "no label" if card["encodes"] == "none" else f"{card['encodes']} ({card[card['encodes']]:.0%})"
    lines = [
        f"{gap}, p {card['p_max_t']:.4f}" if tested else f"{gap} to first order, not tested",
        f"encodes {encodes}; fires on {card['firing']:.1%} of tokens",
        f"monosemanticity {card['monosemanticity']:.2f} (chance {chance:.2f})",
        f"nearest decoders: {card['neighbours']}",
        f"nearest prompts: {card['prompts']}",
    ]
    heading = f"{card['list']} latent {card['latent']}"
    edited = f", edited (step {card['step']})" if card["edited"] else ""
    ax.text(0, 1, heading + edited, weight="bold", va="top", transform=ax.transAxes)
    wrapped = "\n".join(fill(line, TEXT_WIDTH, subsequent_indent="  ") for line in lines)
    ax.text(0, 0.86, wrapped, va="top", fontsize=9.5, transform=ax.transAxes)


def _draw_activation(ax: Axes, values: np.ndarray, images: pd.DataFrame, pooling: str, inference: Inference) -> None:
    """Means with intervals over women, by emotion of the face and, in the planted world, by colour of the top."""
    found = cards.mean_activation(values, images, inference)
    groups = list(dict.fromkeys(zip(found["label"], found["value"], strict=True)))
    for row in found.itertuples():
        x = groups.index((row.label, row.value))
        at = x + SHIFTS[row.condition]
        colour = figures.CONDITION_COLOURS[row.condition]
        ax.plot([at] * 2, [row.low, row.high], color=colour, lw=2)
        name = figures.CONDITION_LABELS[row.condition] if x == 0 else None
        ax.plot(at, row.estimate, "o", color=colour, ms=4, label=name)
    n_emotions = sum(label == "emotion" for label, _ in groups)
    if n_emotions < len(groups):
        ax.axvline(n_emotions - 0.5, color=figures.GREY, lw=0.8, ls=":")
    ax.set_xticks(range(len(groups)), [value for _, value in groups], fontsize=9, rotation=35, ha="right")
    ax.set_ylim(bottom=0)
    ax.set_ylabel(f"activation,\n{pooling}", fontsize=9)


def _draw_images(
    axes: np.ndarray, spliced: SplicedClip, card: pd.Series, held_out: ConfirmationImages, top: np.ndarray
) -> None:
    if not len(top):
        return
    f = cards.token_activation(spliced, held_out.rows[top], card["latent"])
    pictures = spliced.data.images(held_out.rows[top])
    for ax, picture, tokens, (_, labels) in zip(axes, pictures, f, held_out.images.iloc[top].iterrows(), strict=False):
        figures.spotlight(ax, picture, tokens[1:].reshape(spliced.clip.grid))
        ax.set_title(f"{labels['image']},\n{labels['emotion']}", fontsize=9)
        said = f"class {tokens[0] + 0.0:.1f}, max patch {tokens[1:].max():.1f}"
        ax.text(0.5, -0.02, said, fontsize=9, ha="center", va="top", transform=ax.transAxes)


def main() -> None:
    params.command_line(__doc__).parse_args()
    compute, inference, config = params.load(Compute, Inference, DescribeLatents)
    clip, data = vit.load(CLIP_DPATH, compute), dataset.load(DATASET_DPATH)
    chosen = selection.load(SELECTION_DPATH, BY_IMAGE_DPATH)
    spliced = SplicedClip.from_selection(chosen, clip, data, ACTIVATIONS_DPATH, config.batch_size)
    held_out = cards.confirmation_images(spliced, chosen)
    table = describe(spliced, chosen, held_out, config)
    outs.write_metrics(METRICS_FPATH, measure(table, chosen, held_out))
    outs.write_table(TABLE_FPATH, table)
    draw(spliced, table, held_out, inference, config, SHEET_FPATH)


if __name__ == "__main__":
    run_command(main)

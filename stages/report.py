"""All results of the pipeline -> one self-contained HTML page.

reads    metrics/, plots/, data/selection and data/selection_by_image of the earlier stages, params.yaml
writes   plots/report.html (readable without a network), plots/finding.png (the main finding in one picture)
claims   nothing of its own: the finding (`core/report/finding.py`), sentences (`core/report/sentences.py`) and tables
         (`core/report/tables.py`) are built from the metrics
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from PIL import Image

from stages.core import figures
from stages.core.data import dataset
from stages.core.figures import Axes
from stages.core.report import finding, sentences, tables, wording
from stages.core.run import inputs, outs, params
from stages.core.run.errors import run_command
from stages.core.run.labels import CLOTHED, CONDITIONS, SEMI_NUDE
from stages.core.schema import Ablate, CheckHeatmaps, Clip, Demo, Inference, Ingest, TrainSae

METRICS_DPATH, FULL_DPATH = Path("metrics"), Path("metrics/full")
PLOTS_DPATH, SELECTION_DPATH, BY_IMAGE_DPATH = Path("plots"), Path("data/selection"), Path("data/selection_by_image")
DATASET_DPATH = Path("data/dataset")
REPORT_FPATH, FINDING_FPATH = Path("plots/report.html"), Path("plots/finding.png")
TEMPLATE_FPATH = Path("stages/core/report/report.html.jinja")
TITLE = "Does CLIP lose a woman's face when she is semi-nude?"
DAG = """\
ingest ────────┬─────────────┬──────────────┬──────────────┬───────────┐
prepare_clip ──┴─► extract ──┴► train_sae ──┴► analyse_sae ┴► select_sae ─┬─► describe_latents ─┬─► report
                                (layer × expansion)                      ├─► check_stability ──┤
                                                                         ├─► heatmap ──────────┤
                                                                         ├─► map_readout ──────┤
                                                                         └─► ablate ─┬─────────┤
                                                                                     └► export_clip
ingest, prepare_clip ──────────────────────────────────────────────────────► check_heatmaps ───► report"""
PICTURES = {
    "finding": "report",
    "ablate": "ablate",
    "map_readout": "map_readout",
    "heatmap": "heatmap",
    "heatmap_pairs": "heatmap",
    "check_heatmaps": "check_heatmaps",
    "describe_latents": "describe_latents",
    "select_sae": "select_sae",
    "select_sae_statistics": "select_sae",
    "ingest": "ingest",
}  # names in plots/, and the stage that draws each
N_SHOWN = 3  # pairs beside the finding


def draw_finding(metrics: dict[str, Any], chosen: dict[str, Any], with_pictures: bool) -> None:
    """Draw the main finding, and write it to plots/finding.png (FINDING_FPATH).

    Bars show emotion accuracy. Three are without an edit: clothed, semi-nude, and semi-nude with the bust greyed out.
    If latents were edited, two bars are with the edit: semi-nude and clothed. One bar is for the best random set of
    latents, in the condition read worse, if random sets are like the edited set. All bars but that of the random set
    have an interval. A dotted line marks chance.

    metrics: the contents of the metrics files, by name of the stage. Keys used: `ablate` (accuracies, and gain of the
        best random set) and `extract` (chance).
    chosen: content of data/selection/selection.json: the latents that were edited, and the condition read worse.
    with_pictures: whether to show three pairs of images, of women held out when the latents were chosen. The file is
        committed to git. So pass True only for portraits drawn by a program, never for photographs.
    """
    figure = figures.pyplot().figure(figsize=(10.4 if with_pictures else 6.4, 4.2))
    if with_pictures:
        left, right = figure.subfigures(1, 2, width_ratios=[1.05, 1.5])
        _draw_pairs(left.subplots(2, N_SHOWN, squeeze=False))
    else:
        right = figure.subfigures(1, 1)
    _draw_accuracies(right.subplots(), metrics, chosen)
    figures.save(figure, FINDING_FPATH)


def _draw_pairs(axes: np.ndarray) -> None:
    data = dataset.load(DATASET_DPATH)
    images = data.table[data.table["split"] == "confirmation"]
    for column in range(axes.shape[1]):  # each column shows another woman and another emotion
        emotion = data.emotions[column % len(data.emotions)]
        pairs = images.loc[images["emotion"] == emotion, "pair"].unique()
        twins = images[images["pair"] == pairs[column * len(pairs) // axes.shape[1]]]
        for row, condition in enumerate(CONDITIONS):
            image = twins.index[twins["condition"] == condition].to_numpy()
            figures.picture(axes[row, column], data.images(image)[0])
            axes[row, column].set_axis_off()
            axes[row, column].set_title(f"{figures.CONDITION_LABELS[condition]}\n{emotion}", fontsize=9)


def _draw_accuracies(ax: Axes, metrics: dict[str, Any], chosen: dict[str, Any]) -> None:
    ablate = metrics["ablate"]
    original, after = ablate["accuracy"]["original"], ablate["accuracy"]["edited"]
    rows = [
        ("clothed", original[CLOTHED], figures.BLUE),
        ("semi-nude", original[SEMI_NUDE], figures.VERMILION),
        ("semi-nude, bust greyed out", ablate["accuracy"]["bust_greyed"][SEMI_NUDE], figures.VERMILION),
    ]
    if chosen["latents"]:
        edited, losing = f"{len(chosen['latents'])} {chosen['list']} latents edited", chosen["losing"]
        if "best_random_set" in ablate["edit"]["accuracy"]:
            best = original[losing]["estimate"] + ablate["edit"]["accuracy"]["best_random_set"]
            random_set = dict.fromkeys(("estimate", "low", "high"), best)
            rows.append((f"{figures.CONDITION_LABELS[losing]}, best random set edited", random_set, figures.GREY))
        rows += [
            (f"semi-nude, {edited}", after[SEMI_NUDE], figures.GREEN),
            (f"clothed, {edited}", after[CLOTHED], figures.BLUE),
        ]
    labels, values, colours = (list(column) for column in zip(*rows, strict=True))
    figures.interval_bars(ax, labels, values, colours)
    ax.axvline(metrics["extract"]["accuracy"]["chance"], color="black", lw=0.8, ls=":")
    ax.set(xlim=(0, 1.03), xlabel="emotion accuracy (dotted: chance)", title="CLIP reads the same faces")


def embedded(fpath: Path, stage: str) -> str:
    """Return a PNG file as a data URL, to put the picture into the page.

    stage: name of the stage that drew the picture. The message of an error asks the user to rerun this stage.
    Raises UnreadableError if the file is missing or damaged.
    """
    with outs.reading(fpath, stage), Image.open(fpath, formats=["PNG"]) as picture:
        picture.load()  # a damaged picture fails here, not in the reader's browser
    return f"data:image/png;base64,{base64.b64encode(fpath.read_bytes()).decode()}"


def read_strengths() -> dict[str, Any]:
    """Read plots/heatmap_strengths: some pairs, shown at several strengths of the edit.

    Returns pairs (what to call each), strengths (0: no edit, 1: the edit), says (for each pair and strength, the
    probabilities of the emotions in words) and pictures (for each pair and strength, a data URL). There are no pairs if
    nothing was edited. Raises UnreadableError if a part is missing or damaged.
    """
    fpath, stage = PLOTS_DPATH / "heatmap_strengths" / "shown.json", "heatmap"
    found = outs.read_json(fpath, stage)
    with outs.reading(fpath, stage):
        n = len(found["strengths"])
        if len(found["says"]) != len(found["pairs"]) or any(len(said) != n for said in found["says"]):
            raise ValueError(f"{len(found['pairs'])} pairs at {n} strengths, but other texts")
    pictures = [
        [embedded(fpath.with_name(f"{i}_{j}.png"), stage) for j in range(n)] for i in range(len(found["pairs"]))
    ]
    return {**found, "pictures": pictures}


def read_chosen() -> dict[str, Any]:
    """Read data/selection/selection.json: what `select_sae` chose, and why.

    Returns the keys layer and expansion (of the chosen SAE), list (`bias` or `perception`), latents (indices of the
    latents that are edited) and why. Raises UnreadableError if the file is missing or damaged.
    """
    fpath = SELECTION_DPATH / "selection.json"
    found = outs.read_json(fpath, "select_sae")
    with outs.reading(fpath, "select_sae"):
        if not isinstance(found["latents"], list) or found["list"] not in list(wording.GAPS):
            raise ValueError(f"list {found['list']!r}, latents {found['latents']!r:.40}")
    return found


def read_cards(latents: pd.DataFrame) -> pd.DataFrame:
    """Read plots/describe_latents.csv, a row per latent that is described. `tables.latents` lists the columns.

    latents: the edited latents, which must be among those described. The column latent is read.
    Raises UnreadableError if the file is missing, damaged, or of other latents.
    """
    fpath, stage = PLOTS_DPATH / "describe_latents.csv", "describe_latents"
    cards = outs.read_table(fpath, stage, tables.CARD_NUMBERS, text=["encodes"], least_rows=0)
    with outs.reading(fpath, stage):
        if not (cards["latent"].is_unique and latents["latent"].isin(cards["latent"]).all()):
            raise ValueError("the latents are not those that are edited")
        for label in set(cards["encodes"]) - {"none"}:
            if label not in cards or not is_numeric_dtype(cards[label]):
                raise ValueError(f"no column of numbers called {label!r}, which encodes names")
    return cards


def n_tried(saes: pd.DataFrame, edited_list: str) -> int:
    """Count the SAEs in which edits were tried: those searched that had a latent to edit.

    saes: a row per SAE, with searched (1 or 0), n_bias and n_perception (numbers of latents found).
    edited_list: the list that edits come from. The list `ranked` holds all latents.
    """
    searched = saes["searched"] > 0
    return int((searched if edited_list == "ranked" else searched & (saes[f"n_{edited_list}"] > 0)).sum())


def template() -> jinja2.Template:
    """Return the template of the page. All that it is filled with is escaped, and a missing part raises an error."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(TEMPLATE_FPATH.read_text(encoding="utf-8"))


def html(table: pd.DataFrame) -> Any:
    """Return a table as HTML for the page.

    The text of the cells is escaped. The result is marked as safe, so that the template does not escape it again.
    """
    from markupsafe import Markup

    written = table.to_html(index=False, border=0, justify="right")
    return Markup(re.sub(r"\[([^\[\], ]+), ([^\[\], ]+)\]", "[\\1,\u00a0\\2]", written))  # an interval is not split


def main() -> None:
    params.command_line(__doc__).parse_args()
    inputs.remember_file(params.PARAMS_FPATH)  # the page shows the whole file
    inference, ingest, clip, demo, ablate = params.load(Inference, Ingest, Clip, Demo, Ablate)
    metrics = {
        name: outs.read_metrics(METRICS_DPATH / f"{name}.json", name)
        for name in ("ingest", "extract", "select_sae", "check_stability", "describe_latents")
    } | {
        name: outs.read_metrics(FULL_DPATH / f"{name}.json", name)
        for name in ("map_readout", "heatmap", "check_heatmaps", "ablate")
    }
    chosen = read_chosen()
    edited = bool(chosen["latents"])
    sae = outs.read_json(SELECTION_DPATH / "sae" / "cfg.json", "select_sae")
    draw_finding(metrics, chosen, with_pictures=ingest.source == "synthetic")
    pictures = {stem: embedded(PLOTS_DPATH / f"{stem}.png", stage) for stem, stage in PICTURES.items()}
    saes = outs.read_table(PLOTS_DPATH / "select_sae.csv", "select_sae", tables.SAE_NUMBERS, with_gaps=tables.SAE_GAPS)
    latents = outs.read_table(SELECTION_DPATH / "latents.csv", "select_sae", tables.LATENT_NUMBERS, least_rows=0)
    seen = outs.read_table(BY_IMAGE_DPATH / "top_images.csv", "select_sae", ["latent"], text=["top_images"])
    cards = read_cards(latents)
    page = template().render(
        title=TITLE,
        edited=edited,
        finding=finding.finding(metrics, chosen, inference, n_tried(saes, chosen["list"])),
        truth=finding.truth(ingest, clip, demo),
        seen_in_training=finding.seen_in_training(params.load(TrainSae)),
        cards=finding.cards(metrics, chosen),
        images=pictures,
        confidence=wording.in_percent(inference.confidence),
        n_saes=len(saes),
        dag=DAG,
        arms_table=html(tables.arms(metrics, edited)),
        causal=sentences.causal(metrics, chosen, ablate.n_random_sets),
        random_sets=sentences.random_sets(metrics),
        random_sets_table=html(tables.random_sets(metrics)) if edited and metrics["ablate"]["random_sets"] else "",
        null_table=html(tables.null_searches(metrics)) if edited and metrics["ablate"]["null_searches"] else "",
        embeddings=sentences.embeddings(metrics, chosen),
        strengths=read_strengths(),
        which_map=sentences.WHICH_MAP,
        readout_maps=sentences.readout_maps(metrics, chosen),
        region_table=html(tables.region_sums(metrics)),
        heatmaps=sentences.heatmaps(metrics, chosen),
        lift_table=html(tables.lifts(metrics, edited)),
        checks=sentences.checks(metrics),
        images_checked=sentences.images_checked(params.load(CheckHeatmaps)),
        maps_table=html(tables.maps(metrics)),
        selection=f"Layer {chosen['layer']}, expansion {chosen['expansion']}: {chosen['why']}.",
        smallest_p=f"{saes['smallest_p'].max():.2g}",
        list_defined_by=wording.GAPS[chosen["list"]],
        latents_table=html(tables.latents(latents.merge(seen, on="latent"), cards)) if len(latents) else "",
        described=sentences.described(metrics) if len(latents) else "",
        n_cards=len(cards),
        stability=sentences.stability(metrics),
        saes_table=html(tables.saes(saes)),
        published_table=html(tables.study()),
        cosine_table=html(tables.cosines(saes)),
        same_study="OpenAI's ViT-L/14 on SOBEM",
        provenance_table=html(tables.provenance(sae["metadata"])),
        parameters=params.text(),
    )
    with outs.atomic_output(REPORT_FPATH) as unfinished:
        unfinished.write_text(page, "utf-8")


if __name__ == "__main__":
    run_command(main)

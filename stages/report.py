"""All results of the pipeline -> one self-contained HTML page.

reads    metrics/, plots/ and data/selection of the earlier stages, params.yaml
writes   plots/report.html (readable without a network), plots/finding.png (the main finding in one picture)
claims   nothing of its own: sentences (`core/report/sentences.py`) and tables (`core/report/tables.py`) are built from
         the metrics
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from stages.core import figures
from stages.core.data import dataset
from stages.core.figures import Axes
from stages.core.report import sentences, tables
from stages.core.run import outs, params
from stages.core.run.errors import run_command
from stages.core.run.labels import CLOTHED, CONDITIONS, SEMI_NUDE
from stages.core.schema import Ablate, Clip, Demo, Inference, Ingest

METRICS_DPATH, FULL_DPATH = Path("metrics"), Path("metrics/full")
PLOTS_DPATH, SELECTION_DPATH = Path("plots"), Path("data/selection")
DATASET_DPATH = Path("data/dataset")
REPORT_FPATH, FINDING_FPATH = Path("plots/report.html"), Path("plots/finding.png")
TEMPLATE_FPATH = Path("stages/core/report/report.html.jinja")
TITLE = "Does CLIP lose a woman's face when she is semi-nude?"
DAG = """\
ingest ────────┬─────────────┬──────────────┬──────────────┬───────────┐
prepare_clip ──┴─► extract ──┴► train_sae ──┴► analyse_sae ┴► select_sae ─┬─► describe_latents ─┬─► report
                                (layer × expansion)                      ├─► check_stability ──┤
                                                                         ├─► heatmap ──────────┤
                                                                         └─► ablate ─┬─────────┤
                                                                                     └► export_clip
ingest, prepare_clip ──────────────────────────────────────────────────────► check_heatmaps ───► report"""
PICTURES = (
    "finding",
    "ablate",
    "heatmap",
    "heatmap_pairs",
    "check_heatmaps",
    "describe_latents",
    "select_sae",
    "select_sae_statistics",
    "ingest",
)
N_SHOWN = 3  # pairs beside the finding


def draw_finding(metrics: dict[str, Any], edited: str, with_pictures: bool) -> None:
    """Draw the main finding, and write it to plots/finding.png (FINDING_FPATH).

    Six bars show emotion accuracy. Three are without an edit: clothed, semi-nude, and semi-nude with the bust greyed
    out. One is semi-nude with the best random set of latents edited. Two are with the edit: semi-nude and clothed. All
    bars but that of the random set have an interval. A dotted line marks chance.

    metrics: the contents of the metrics files, by name of the stage. Keys used: `ablate` (accuracies, and gain of the
        best random set) and `extract` (chance).
    edited: what was edited, in words, such as "28 bias latents edited". It labels the bars with the edit.
    with_pictures: whether to show three pairs of images, of women held out when the latents were chosen. The file is
        committed to git. So pass True only for portraits drawn by a program, never for photographs.
    """
    figure = figures.pyplot().figure(figsize=(10.4 if with_pictures else 6.4, 4.2))
    if with_pictures:
        left, right = figure.subfigures(1, 2, width_ratios=[1.05, 1.5])
        _draw_pairs(left.subplots(2, N_SHOWN, squeeze=False))
    else:
        right = figure.subfigures(1, 1)
    _draw_accuracies(right.subplots(), metrics, edited)
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


def _draw_accuracies(ax: Axes, metrics: dict[str, Any], edited: str) -> None:
    ablate = metrics["ablate"]
    original, after = ablate["accuracy"]["original"], ablate["accuracy"]["edited"]
    start = original[SEMI_NUDE]["estimate"]
    best = start + ablate["edit"]["accuracy"]["best_random_set"]
    rows = [
        ("clothed", original[CLOTHED], figures.BLUE),
        ("semi-nude", original[SEMI_NUDE], figures.VERMILION),
        ("semi-nude, bust greyed out", ablate["accuracy"]["bust_greyed"][SEMI_NUDE], figures.VERMILION),
        ("semi-nude, best random set edited", dict.fromkeys(("estimate", "low", "high"), best), figures.GREY),
        (f"semi-nude, {edited}", after[SEMI_NUDE], figures.GREEN),
        (f"clothed, {edited}", after[CLOTHED], figures.BLUE),
    ]
    labels, values, colours = (list(column) for column in zip(*rows, strict=True))
    figures.interval_bars(ax, labels, values, colours)
    ax.axvline(metrics["extract"]["accuracy"]["chance"], color="black", lw=0.8, ls=":")
    ax.set(xlim=(0, 1.03), xlabel="emotion accuracy (dotted: chance)", title="CLIP reads the same faces")


def embedded(fpath: Path) -> str:
    """Return a PNG file as a data URL, to put the picture into the page.

    Raises FileNotFoundError if the file is missing. If the picture is damaged, Pillow's error is raised.
    """
    with Image.open(fpath) as picture:
        picture.load()  # a damaged picture fails here, not in the reader's browser
    return f"data:image/png;base64,{base64.b64encode(fpath.read_bytes()).decode()}"


def template() -> jinja2.Template:
    """Return the template of the page. All that it is filled with is escaped, and a missing part raises an error."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(TEMPLATE_FPATH.read_text(encoding="utf-8"))


def html(table: pd.DataFrame) -> Any:
    """Return a table as HTML for the page.

    The text of the cells is escaped. The result is marked as safe, so that the template does not escape it again.
    """
    from markupsafe import Markup

    return Markup(table.to_html(index=False, border=0, justify="right"))


def main() -> None:
    params.command_line(__doc__).parse_args()
    inference, ingest, clip, demo, ablate = params.load(Inference, Ingest, Clip, Demo, Ablate)
    metrics = {
        name: outs.read_metrics(METRICS_DPATH / f"{name}.json", name)
        for name in ("ingest", "extract", "select_sae", "check_stability", "describe_latents")
    } | {name: outs.read_metrics(FULL_DPATH / f"{name}.json", name) for name in ("heatmap", "check_heatmaps", "ablate")}
    chosen = outs.read_json(SELECTION_DPATH / "selection.json", "select_sae")
    sae = outs.read_json(SELECTION_DPATH / "sae" / "cfg.json", "select_sae")
    edited = f"{len(chosen['latents'])} {chosen['list']} latents edited"
    draw_finding(metrics, edited, with_pictures=ingest.source == "synthetic")
    pictures = {stem: embedded(PLOTS_DPATH / f"{stem}.png") for stem in PICTURES}
    saes = outs.read_table(PLOTS_DPATH / "select_sae.csv", "select_sae")
    latents = outs.read_table(SELECTION_DPATH / "latents.csv", "select_sae")
    cards = outs.read_table(PLOTS_DPATH / "describe_latents.csv", "describe_latents")
    page = template().render(
        title=TITLE,
        finding=sentences.finding(metrics, chosen, inference),
        truth=sentences.truth(ingest, clip, demo),
        cards=sentences.cards(metrics),
        images=pictures,
        confidence=f"{inference.confidence:.0%}",
        n_saes=len(saes),
        dag=DAG,
        arms_table=html(tables.arms(metrics)),
        causal=sentences.causal(metrics, ablate.n_random_sets),
        embeddings=sentences.embeddings(metrics),
        heatmaps=sentences.heatmaps(metrics),
        lift_table=html(tables.lifts(metrics)),
        checks=sentences.checks(metrics),
        maps_table=html(tables.maps(metrics)),
        selection=f"Layer {chosen['layer']}, expansion {chosen['expansion']}: {chosen['why']}.",
        smallest_p=f"{saes['smallest_p'].max():.2g}",
        list_defined_by=sentences.GAPS[chosen["list"]],
        latents_table=html(tables.latents(latents, cards)),
        described=sentences.described(metrics),
        stability=sentences.stability(metrics),
        saes_table=html(tables.saes(saes)),
        published_table=html(tables.study()),
        cosine_table=html(tables.cosines(saes)),
        same_study="OpenAI's ViT-L/14 on SOBEM",
        provenance_table=html(tables.provenance(sae["metadata"])),
        parameters=params.text(),
    )
    with outs.atomic_output(REPORT_FPATH) as unfinished:
        unfinished.write_text(page)


if __name__ == "__main__":
    run_command(main)

"""The picture of all SAEs of the grid, side by side."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import pandas as pd

from stages.core import figures
from stages.core.figures import Axes

FVU_LABELS = {"held_out_fvu": "FVU on held-out women", "train_fvu": "FVU on the images trained on"}


def judged_fvu(table: pd.DataFrame) -> str:
    """Name the column by which SAEs are compared in FVU (fraction of variance unexplained).

    table: a row per SAE. Its column held_out_fvu is the FVU on held-out women, NaN if nobody was held out.
    Returns "held_out_fvu" if no SAE has NaN there. Otherwise returns "train_fvu", the FVU on the images trained on.
    """
    return "train_fvu" if table["held_out_fvu"].isna().any() else "held_out_fvu"


def draw(table: pd.DataFrame, chosen: pd.Series, fpath: Path) -> None:
    """Draw the SAEs side by side, with a circle around the chosen one, and write the picture to `fpath`.

    The first panel shows FVU (fraction of variance unexplained) against L0. The second shows the AUC of the published
    test (activations on semi-nude against clothed images) against the expansion. The third shows the net gain of the
    best edit against the expansion; it is left out if no edit was tried. Each layer has a line.

    table: a row per SAE, from `collect` and `with_edits` of stages/select_sae.py. Columns used: layer, expansion, l0
        (active latents per token), train_fvu, held_out_fvu, auc, searched and net_gain. net_gain is the rise of R
        (log-probability of the true emotion, nats) in the condition read worse minus the absolute change of R in the
        other; NaN for an SAE that was not searched.
    chosen: the row of `table` that belongs to the chosen SAE.
    """
    searched = bool(table["searched"].any())
    figure, axes = figures.panels(2 + searched, "The SAEs of the grid (circle: the chosen one; × expansion)")
    layers, fvu = sorted(table["layer"].unique().tolist()), judged_fvu(table)
    colours = dict(zip(layers, cycle(figures.SERIES), strict=False))
    panels = (
        ("l0", fvu, ("L0 (active latents per token)", FVU_LABELS[fvu], "Sparsity and fidelity")),
        ("expansion", "auc", ("expansion", "AUC, semi-nude\nagainst clothed", "The published test")),
        ("expansion", "net_gain", ("expansion", "net gain in R (nats)", "Best edit on discovery women")),
    )
    for ax, (x, y, labels) in zip(axes[0], panels, strict=False):
        for layer in layers:
            part = table[(table["layer"] == layer) & table[y].notna()].sort_values(x)
            ax.plot(part[x], part[y], "o-", color=colours[layer], lw=1.2)
        ax.plot(chosen[x], chosen[y], "o", ms=14, mfc="none", mec="black")
        ax.set(xlabel=labels[0], ylabel=labels[1], title=labels[2])
    label_expansions(axes[0, 0], table, fvu, colours)
    axes[0, 1].axhline(0.5, color="black", lw=0.7, ls=":")
    if searched:
        axes[0, 2].axhline(0, color="black", lw=0.7, ls=":")
    for ax in axes[0, 1:]:
        ax.set_xlim(table["expansion"].min() / 1.2, table["expansion"].max() * 1.2)  # a panel may be empty
        ax.set_xscale("log", base=2)
        ax.set_xticks(sorted(table["expansion"].unique()), [str(e) for e in sorted(table["expansion"].unique())])
    figures.line_legend(figure, {f"layer {layer}": {"color": colours[layer]} for layer in layers})
    figures.save(figure, fpath)


def label_expansions(ax: Axes, table: pd.DataFrame, fvu: str, colours: dict[int, str]) -> None:
    """Write its expansion beside the dot of each SAE: left of it, above it or right of it, by layer.

    table: a row per SAE, with layer, expansion, l0 and the column named by fvu. colours: colour by layer.
    """
    places = dict(zip(colours, cycle((((-10, -4), "right"), ((0, 10), "center"), ((10, -4), "left"))), strict=False))
    for layer, expansion, l0, height in table[["layer", "expansion", "l0", fvu]].itertuples(index=False):
        offset, side = places[layer]
        text, place = f"× {expansion:.0f}", (l0, height)
        ax.annotate(text, place, offset, textcoords="offset points", ha=side, fontsize=8, color=colours[layer])
    ax.margins(0.15)  # room for the labels

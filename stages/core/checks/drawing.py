"""The figure of the stage `check_heatmaps`, in four panels."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import pandas as pd

from stages.core import figures
from stages.core.checks import baselines
from stages.core.checks.deletion_insertion import KINDS


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
    colours = dict(zip(names, cycle((*figures.SERIES, figures.GREY, "black")), strict=False))
    styles = {name: ":" if name in baselines.NAMES else "--" if name.endswith("contrastive") else "-" for name in names}
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

"""The analyses of all SAEs -> one SAE and the latents to edit, chosen on discovery women only.

reads    data/sae and data/analysis of all points of the grid
writes   data/selection (the chosen SAE's sae/, tests.csv with all latents, bias.csv and perception.csv, latents.csv
         with the latents to edit; selection.json), data/selection_by_image (what the latents did on each image:
         pooled.zarr, and top_images.csv), metrics/select_sae.json, plots/select_sae.csv (a row per SAE),
         plots/sae_curves.csv (training histories of all SAEs), plots/select_sae.png, and
         plots/select_sae_statistics.png (a copy)
claims   which SAE the rule in params.yaml picks and why, and how many of its latents are edited: the number that gains
         most on discovery women. It is also a result if no latent is significant

R           log-probability of the true emotion, nats
net gain    of an edit: gain of R on semi-nude images minus loss on clothed ones
point       layer and expansion (d_sae / d_in) of one SAE, a cell of the grid in params.yaml
"""

from __future__ import annotations

import json
import shutil
from itertools import cycle
from pathlib import Path
from typing import get_args

import pandas as pd

from stages.core import figures
from stages.core.latents import lists
from stages.core.run import outs, params
from stages.core.run.errors import run_command
from stages.core.run.params import Point
from stages.core.schema import Edit, Grid, LatentList, SelectSae

SAE_DPATH, ANALYSIS_DPATH, SELECTION_DPATH = Path("data/sae"), Path("data/analysis"), Path("data/selection")
BY_IMAGE_DPATH = Path("data/selection_by_image")  # stays on this machine: a list of images per latent betrays images
METRICS_FPATH, TABLE_FPATH = Path("metrics/select_sae.json"), Path("plots/select_sae.csv")
CURVES_FPATH, PLOT_FPATH = Path("plots/sae_curves.csv"), Path("plots/select_sae.png")
FVU_LABELS = {"held_out_fvu": "FVU on held-out women", "train_fvu": "FVU on the images trained on"}
GAINS = ("semi_nude_gain", "clothed_loss", "net_gain", "clothed_accuracy_loss")
STATISTICS_FPATH = Path("plots/select_sae_statistics.png")


def points(grid: Grid) -> list[Point]:
    """List all SAEs of the grid: every layer with every expansion (d_sae / d_in)."""
    return [Point(layer, expansion) for layer in grid.layers for expansion in grid.expansions]


def load_lists(name: str) -> dict[LatentList, pd.DataFrame]:
    """Read the two lists of latents of one SAE, as `analyse_sae` wrote them.

    name: folder of the SAE in data/analysis, such as l22_x16.
    Returns two tables. `bias` lists the latents whose effect on the emotion readout harms semi-nude women.
    `perception` lists the latents that are more active on semi-nude women. Each has a row per latent:
        latent             index of the latent
        step               step of the search that found the latent
        mean, low, high    mean gap (clothed minus semi-nude) and its interval. On `bias`: gap of the effect, nats.
                           On `perception`: gap of the activation
        p_max_t            family-wise p-value of the gap
    Raises LatentsError if a list cannot be read.
    """
    return {kind: lists.load(ANALYSIS_DPATH / name / f"{kind}.csv") for kind in get_args(LatentList)}


def collect(grid: Grid, clothed_cost: float) -> pd.DataFrame:
    """Collect the results of the SAEs of the grid, to choose one.

    clothed_cost: largest loss of accuracy on clothed images, 0 to 1, that an edit may cause. The best edit is the edit
        with the largest net gain within this limit. If no edit is within the limit, the best edit has 0 latents.
    Returns a row per SAE. R is the log-probability of the true emotion, in nats:
        layer, expansion                                 layer of the SAE, and d_sae / d_in
        recon, l0, l0_fraction, fvu, total               losses and sparsity at the last training step
        train_fvu                                        FVU on the images trained on
        held_out_fvu                                     FVU on held-out women; NaN if nobody was held out
        dead_fraction                                    share of latents that never fire on the images trained on
        mwu_p, auc, cliffs_delta, ks_p                   Mann-Whitney and Kolmogorov-Smirnov tests of the latents' mean
                                                         activations, semi-nude against clothed
        cosine_difference_mean, cosine_difference_std    cosine(image, text) with the SAE in CLIP minus without
        first_order_correlation                          correlation of latents' first-order effects on R with the loss
                                                         of R when each latent alone is zeroed
        smallest_p                                       smallest p-value that the permutation test can give
        n_bias, n_perception                             number of latents on the list of bias and of perception latents
        n_edited                                         number of latents of the best edit
        semi_nude_gain                                   rise of R on semi-nude images by the best edit
        clothed_loss                                     fall of R on clothed images by the best edit
        net_gain                                         semi_nude_gain - clothed_loss
        clothed_accuracy_loss                            loss of accuracy on clothed images by the best edit
    Raises UnreadableError or LatentsError if a result is missing or damaged.
    """
    rows = []
    for point in points(grid):
        name = str(point)
        trained = outs.read_json(SAE_DPATH / name / "cfg.json", "train_sae")["metadata"]["quality"]
        last = outs.read_table(SAE_DPATH / name / "history.csv", "train_sae").iloc[-1]
        analysed = outs.read_json(ANALYSIS_DPATH / name / "summary.json", "analyse_sae")
        curve = outs.read_table(ANALYSIS_DPATH / name / "curve.csv", "analyse_sae")
        best = lists.best_edit(curve, clothed_cost)
        rows.append(
            {
                "layer": point.layer,
                "expansion": point.expansion,
                **{key: float(last[key]) for key in ("recon", "l0", "l0_fraction", "fvu", "total")},
                "train_fvu": trained["train"]["fvu"],
                "held_out_fvu": trained["held_out"]["fvu"] if "held_out" in trained else float("nan"),
                "dead_fraction": trained["train"]["dead_fraction"],
                **{key: analysed["published"][key] for key in ("mwu_p", "auc", "cliffs_delta", "ks_p")},
                "cosine_difference_mean": analysed["splice"]["cosine_difference_mean"],
                "cosine_difference_std": analysed["splice"]["cosine_difference_std"],
                "first_order_correlation": analysed["first_order"]["correlation"],
                "smallest_p": analysed["latents"]["smallest_p"],
                **{f"n_{kind}": len(found) for kind, found in load_lists(name).items()},
                "n_edited": int(best["n_latents"]),
                **{key: float(best[key]) for key in GAINS},
            }
        )
    return pd.DataFrame(rows)


def choose(table: pd.DataFrame, config: SelectSae) -> tuple[pd.Series, str]:
    """Choose one SAE by the rule in params.yaml.

    table: a row per SAE, from `collect`.
    config: `rule` is one of three.
        net_gain: take the SAE with the largest net_gain. If no net_gain is above 0, take the SAE with the lowest FVU
            (fraction of variance unexplained).
        published: take the SAE whose auc is farthest from one half. auc compares the latents' mean activations on
            semi-nude and on clothed images.
        fixed: take the SAE with `layer` and `expansion` of `config`.
    net_gain is the gain of R (log-probability of the true emotion, nats) on semi-nude images minus the loss of R on
    clothed images, by the best edit of this SAE.
    Returns the row of the chosen SAE, and the reason in words.
    Raises ParamsError if the rule is `fixed` and the grid has no such SAE.
    """
    if config.rule == "fixed":
        found = table[(table["layer"] == config.layer) & (table["expansion"] == config.expansion)]
        if found.empty:
            raise params.ParamsError(
                f"select_sae: layer {config.layer}, expansion {config.expansion} is not on the grid"
            )
        return found.iloc[0], "fixed in params.yaml"
    if config.rule == "published":
        best = table.loc[(table["auc"] - 0.5).abs().idxmax()]
        return best, f"its published AUC is the farthest from one half ({best['auc']:.3f})"
    best = table.loc[table["net_gain"].idxmax()]
    if best["net_gain"] <= 0:
        best = table.loc[table[judged_fvu(table)].idxmin()]
        return best, "no edit helped on discovery women, so the SAE with the lowest FVU was taken"
    return best, (
        f"on discovery women, an edit of {best['n_edited']:.0f} latents gives semi-nude images a gain of "
        f"{best['semi_nude_gain']:.2f} nats in the log-probability of the true emotion; clothed images lose "
        f"{best['clothed_loss']:.2f} nats and {100 * best['clothed_accuracy_loss']:.1f} points of accuracy"
    )


def judged_fvu(table: pd.DataFrame) -> str:
    """Name the column by which SAEs are compared in FVU (fraction of variance unexplained).

    table: a row per SAE. Its column held_out_fvu is the FVU on held-out women, NaN if nobody was held out.
    Returns "held_out_fvu" if no SAE has NaN there. Otherwise returns "train_fvu", the FVU on the images trained on.
    """
    return "train_fvu" if table["held_out_fvu"].isna().any() else "held_out_fvu"


def curves(grid: Grid) -> pd.DataFrame:
    """Join the training histories of all SAEs in one table.

    Returns a row per SAE and logged step:
        layer, expansion          of the SAE
        step                      number of the training step
        recon, sparsity, total    mean squared error, sparsity term of the loss, and total loss
        l0, l0_fraction           active latents per token, and the same as a share of d_sae
        fvu                       fraction of variance unexplained
        dead_fraction             share of latents that fired in none of the latest training steps
    Raises UnreadableError if a history is missing or damaged.
    """
    parts = [
        outs.read_table(SAE_DPATH / str(point) / "history.csv", "train_sae").assign(
            layer=point.layer, expansion=point.expansion
        )
        for point in points(grid)
    ]
    return pd.concat(parts, ignore_index=True)


def draw(table: pd.DataFrame, chosen: pd.Series, fpath: Path) -> None:
    """Draw the SAEs side by side, with a circle around the chosen one, and write the picture to `fpath`.

    The first panel shows FVU (fraction of variance unexplained) against L0. The second shows the AUC of the published
    test (activations on semi-nude against clothed images) against the expansion. The third shows the net gain of the
    best edit against the expansion. Each layer has a line.

    table: a row per SAE, from `collect`. Columns used: layer, expansion, l0 (active latents per token), train_fvu,
        held_out_fvu, auc and net_gain. net_gain is the rise of R (log-probability of the true emotion, nats) on
        semi-nude images minus the fall of R on clothed images.
    chosen: the row of `table` that belongs to the chosen SAE.
    """
    figure, axes = figures.panels(3, "The SAEs of the grid (circle: the chosen one)")
    layers, fvu = sorted(table["layer"].unique()), judged_fvu(table)
    colours = dict(zip(layers, cycle(figures.SERIES), strict=False))
    for ax, x, y, labels in (
        (axes[0, 0], "l0", fvu, ("L0 (active latents per token)", FVU_LABELS[fvu], "Sparsity and fidelity")),
        (axes[0, 1], "expansion", "auc", ("expansion", "AUC, semi-nude against clothed", "The published test")),
        (axes[0, 2], "expansion", "net_gain", ("expansion", "net gain in R (nats)", "Edit on discovery women")),
    ):
        for layer in layers:
            part = table[table["layer"] == layer].sort_values(x)
            ax.plot(part[x], part[y], "o-", color=colours[layer], label=f"layer {layer}", lw=1.2)
        ax.plot(chosen[x], chosen[y], "o", ms=14, mfc="none", mec="black")
        ax.set(xlabel=labels[0], ylabel=labels[1], title=labels[2])
    axes[0, 1].axhline(0.5, color="black", lw=0.7, ls=":")
    axes[0, 2].axhline(0, color="black", lw=0.7, ls=":")
    for ax in axes[0, 1:]:
        ax.set_xscale("log", base=2)
        ax.set_xticks(sorted(table["expansion"].unique()), [str(e) for e in sorted(table["expansion"].unique())])
    axes[0, 0].legend()
    figures.save(figure, fpath)


def main() -> None:
    params.command_line(__doc__).parse_args()
    grid, edit, config = params.load(Grid, Edit, SelectSae)
    table = collect(grid, edit.clothed_cost)
    chosen, why = choose(table, config)
    name = str(Point(int(chosen["layer"]), int(chosen["expansion"])))
    tests = outs.read_table(ANALYSIS_DPATH / name / "latents.csv", "analyse_sae")
    found = load_lists(name)
    edited = found[edit.latents][: int(chosen["n_edited"])]
    described = tests[["latent", "act_mean", "act_p_max_t", "firing"]]
    selection = {
        "layer": int(chosen["layer"]),
        "expansion": int(chosen["expansion"]),
        "list": edit.latents,
        "latents": edited["latent"].tolist(),
        "why": why,
    }
    with outs.atomic_output(SELECTION_DPATH) as directory:
        shutil.copytree(SAE_DPATH / name, directory / "sae")
        shutil.copy(ANALYSIS_DPATH / name / "latents.csv", directory / "tests.csv")
        for kind in found:
            shutil.copy(ANALYSIS_DPATH / name / f"{kind}.csv", directory)
        outs.write_table(directory / "latents.csv", edited.merge(described, on="latent"))
        (directory / "selection.json").write_text(json.dumps(selection, indent=2) + "\n")
    with outs.atomic_output(BY_IMAGE_DPATH) as directory:
        directory.mkdir()
        shutil.copytree(ANALYSIS_DPATH / name / "pooled.zarr", directory / "pooled.zarr")
        shutil.copy(ANALYSIS_DPATH / name / "top_images.csv", directory)
    with outs.atomic_output(STATISTICS_FPATH) as unfinished:
        shutil.copy(ANALYSIS_DPATH / name / "statistics.png", unfinished)
    keys = (judged_fvu(table), "auc", "mwu_p", "n_bias", "n_perception", *GAINS)
    metrics = {
        "layer": selection["layer"],
        "expansion": selection["expansion"],
        "d_sae": len(tests),
        "n_latents": len(edited),
        **{key: float(chosen[key]) for key in keys},
    }
    outs.write_metrics(METRICS_FPATH, metrics)
    outs.write_table(TABLE_FPATH, table.assign(chosen=(table.index == chosen.name).astype(int)))
    outs.write_table(CURVES_FPATH, curves(grid))
    draw(table, chosen, PLOT_FPATH)


if __name__ == "__main__":
    run_command(main)

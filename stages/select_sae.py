"""The analyses of all SAEs -> a search for latents to edit, one SAE, and its edit, chosen on discovery women only.

reads    data/sae and data/analysis of all points of the grid, data/dataset, data/clip, data/activations
writes   data/selection (the chosen SAE's sae/, tests.csv with all latents, bias.csv and perception.csv, latents.csv
         with the latents to edit; selection.json), data/selection_by_image (what the latents did on each image:
         pooled.zarr, and top_images.csv), metrics/select_sae.json, plots/select_sae.csv (a row per SAE),
         plots/sae_curves.csv (training histories of all SAEs), plots/select_sae.png, and
         plots/select_sae_statistics.png (the latents of the chosen SAE)
claims   which SAE the rule in params.yaml picks and why, and how many of its latents are edited: the number that gains
         most on discovery women. Nothing is edited if CLIP reads both conditions alike, or if no edit helps. An edit
         helps if it gains more R than it changes in the other condition, does not lower accuracy in the losing
         condition, and costs the other condition at most `edit.max_cost` of accuracy

R           log-probability of the true emotion, nats
losing      the condition that CLIP reads worse on discovery women
gain        of an edit: rise of R in the losing condition; net gain: gain minus |change of R in the other condition|
point       layer and expansion (d_sae / d_in) of one SAE, a cell of the grid in params.yaml
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from stages.core import figures, store
from stages.core.clip import vit
from stages.core.clip.vit import FrozenClip
from stages.core.data import dataset
from stages.core.data.dataset import Dataset
from stages.core.latents import lists, readout_gap
from stages.core.latents.edit_curve import Gains, best_edit
from stages.core.latents.edited_effects import EditedEffects, candidate_latents
from stages.core.latents.edited_images import EditedImages
from stages.core.latents.pooling import PooledLatents
from stages.core.latents.readout_gap import ReadoutGap
from stages.core.latents.search import Ranking, find_step_by_step, harmful_latents, most_gaining
from stages.core.latents.spliced_clip import SplicedClip, original
from stages.core.paired import Pairs
from stages.core.run import outs, params
from stages.core.run.errors import run_command
from stages.core.run.labels import OTHER_CONDITION
from stages.core.run.params import Point
from stages.core.run.progress import progress
from stages.core.sae import JumpReLUSAE
from stages.core.schema import Compute, Edit, Grid, Inference, LatentList, SelectSae
from stages.core.statistics import drawing, grid_drawing
from stages.core.statistics.clusters import clusters

DATASET_DPATH, CLIP_DPATH, ACTIVATIONS_DPATH = Path("data/dataset"), Path("data/clip"), Path("data/activations")
SAE_DPATH, ANALYSIS_DPATH, SELECTION_DPATH = Path("data/sae"), Path("data/analysis"), Path("data/selection")
BY_IMAGE_DPATH = Path("data/selection_by_image")  # stays on this machine: a list of images per latent betrays images
METRICS_FPATH, TABLE_FPATH = Path("metrics/select_sae.json"), Path("plots/select_sae.csv")
CURVES_FPATH, PLOT_FPATH = Path("plots/sae_curves.csv"), Path("plots/select_sae.png")
LOSSES = ("recon", "l0", "l0_fraction", "fvu", "total")
TESTS = ("latent", "act_mean", "act_p_max_t", "firing")
GAINS = ("gain", "other_change", "net_gain", "accuracy_gain", "other_accuracy_loss")
STATISTICS_FPATH = Path("plots/select_sae_statistics.png")


def points(grid: Grid) -> list[Point]:
    """List all SAEs of the grid: every layer with every expansion (d_sae / d_in)."""
    return [Point(layer, expansion) for layer in grid.layers for expansion in grid.expansions]


def read_history(point: Point) -> pd.DataFrame:
    """Read the training history of one SAE, a row per logged step. `curves` lists the columns.

    Raises UnreadableError if the file is missing or damaged.
    """
    return outs.read_table(SAE_DPATH / str(point) / "history.csv", "train_sae", ("step", *LOSSES))


def collect(grid: Grid) -> pd.DataFrame:
    """Collect what was measured of each SAE of the grid before any edit.

    Returns a row per SAE:
        layer, expansion                                 layer of the SAE, and d_sae / d_in
        recon, l0, l0_fraction, fvu, total               losses and sparsity at the last training step
        train_fvu                                        FVU on the images trained on
        held_out_fvu                                     FVU on held-out women; NaN if nobody was held out
        dead_fraction                                    share of latents that never fire on the images trained on
        mwu_p, auc, cliffs_delta, ks_p                   Mann-Whitney and Kolmogorov-Smirnov tests of the latents' mean
                                                         activations, semi-nude against clothed, over all images
        auc_discovery                                    the same AUC over images of discovery women
        cosine_difference_mean, cosine_difference_std    cosine(image, text) with the SAE in CLIP minus without
        first_order_correlation                          correlation of latents' first-order effects on R with the loss
                                                         of R when each latent alone is zeroed
        smallest_p                                       smallest p-value that the permutation test can give
        n_bias, n_perception                             number of latents on each list, in the model without an edit
    Raises UnreadableError or LatentsError if a result is missing or damaged.
    """
    rows = []
    for point in points(grid):
        name = str(point)
        trained = outs.read_json(SAE_DPATH / name / "cfg.json", "train_sae")["metadata"]["quality"]
        last = read_history(point).iloc[-1]
        analysed = outs.read_json(ANALYSIS_DPATH / name / "summary.json", "analyse_sae")
        bias, perception = (lists.load(ANALYSIS_DPATH / name / f"{kind}.csv") for kind in ("bias", "perception"))
        rows.append(
            {
                "layer": point.layer,
                "expansion": point.expansion,
                **{key: float(last[key]) for key in LOSSES},
                "train_fvu": trained["train"]["fvu"],
                "held_out_fvu": trained["held_out"]["fvu"] if "held_out" in trained else float("nan"),
                "dead_fraction": trained["train"]["dead_fraction"],
                **{key: analysed["published"][key] for key in ("mwu_p", "auc", "cliffs_delta", "ks_p")},
                "auc_discovery": analysed["published_discovery"]["auc"],
                "cosine_difference_mean": analysed["splice"]["cosine_difference_mean"],
                "cosine_difference_std": analysed["splice"]["cosine_difference_std"],
                "first_order_correlation": analysed["first_order"]["correlation"],
                "smallest_p": analysed["latents"]["smallest_p"],
                "n_bias": len(bias),
                "n_perception": len(perception),
            }
        )
    return pd.DataFrame(rows)


def shortlist(table: pd.DataFrame, config: SelectSae, edit: Edit) -> list[int]:
    """Choose the SAEs whose edits are tried.

    table: a row per SAE, from `collect`, with a further column promise (`Audit.promise`).
    config: with the rule `net_gain`, `n_searched` SAEs among those that promise something: of each layer the SAE of the
        largest promise, then of each layer the next, because layers differ more than expansions. The rules `published`
        and `fixed` name one SAE.
    edit: the list that is edited. A list of perception latents needs no search, so all SAEs are tried.
    Returns the indices of rows of `table`. Raises ParamsError if the rule is `fixed` and the grid has no such SAE.
    """
    if config.rule == "fixed":
        found = table.index[(table["layer"] == config.layer) & (table["expansion"] == config.expansion)]
        if not len(found):
            raise params.ParamsError(
                f"select_sae: layer {config.layer}, expansion {config.expansion} is not on the grid"
            )
        return [int(found[0])]
    if config.rule == "published":
        return [int((table["auc_discovery"] - 0.5).abs().idxmax())]
    if edit.latents == "perception":
        return table.index[table["n_perception"] > 0].tolist()
    promising = table[table["promise"] > 0].sort_values("promise", ascending=False, kind="stable")
    place = promising.groupby("layer").cumcount()
    return place.sort_values(kind="stable").index[: config.n_searched].tolist()


@dataclass(frozen=True)
class Searched:
    """The latents of one SAE that could be edited, and what editing the first of them does on discovery women.

    found: the list of latents that could be edited, a row per latent (`core/latents/lists.py`).
    edited: the latents of the best edit, a row per latent, the first to edit first; none if no edit helps.
    gains: what the best edit gives and costs (`Gains.measure`).
    """

    found: pd.DataFrame
    edited: pd.DataFrame
    gains: pd.Series


@dataclass(frozen=True)
class Audit:
    """CLIP, the images, and the settings by which latents are searched and edits are judged.

    losing: the condition that CLIP reads worse on discovery women.
    """

    clip: FrozenClip
    data: Dataset
    inference: Inference
    edit: Edit
    batch_size: int

    def spliced(self, point: Point) -> SplicedClip:
        """Return CLIP with the SAE of a point of the grid spliced in.

        Raises SAEError or StoreError if the SAE or its activations are missing or damaged.
        """
        sae = JumpReLUSAE.load(SAE_DPATH / str(point)).to(self.clip.device)
        activations = store.open(ACTIVATIONS_DPATH / f"l{point.layer}.zarr", self.data)
        return SplicedClip(self.clip, sae, point.layer, self.data, activations, self.batch_size)

    @property
    def pairs(self) -> Pairs:
        """The pairs of discovery women, on whom everything is chosen."""
        return Pairs.from_images(self.data.table, "discovery")

    def gap(self, point: Point) -> ReadoutGap:
        """Measure how CLIP reads both conditions without an edit. The point only says from where CLIP goes on."""
        outcomes = self.spliced(point).outcomes(self.pairs.rows, [original])
        return readout_gap.measure(outcomes, self.pairs, len(self.data.emotions), self.inference)

    def _ranking(self, losing: str) -> Ranking:
        if self.edit.latents == "ranked":
            return partial(most_gaining, losing=losing)
        return partial(harmful_latents, losing=losing, clusters=self.pairs.women, inference=self.inference)

    def promise(self, point: Point, losing: str | None) -> float:
        """Estimate what the first step of a search would gain, without a search.

        losing: the condition that CLIP reads worse; None if it reads both alike.
        Returns the sum, over the latents that the first step would edit, of the value that ranks them (nats, to first
        order): the net gain for `ranked`, else the effect gap of the bias latents. Without a losing condition it is 0.
        Raises LatentsError or PooledLatentsError if a result of `analyse_sae` is missing or damaged.
        """
        if losing is None:
            return 0.0
        directory = ANALYSIS_DPATH / str(point)
        if self.edit.latents == "ranked":
            pooled = PooledLatents.load(directory / "pooled.zarr")
            effects = pooled.effect[self.pairs.positions(self.data.audit_rows())]
            ranked = most_gaining(self.pairs.split(effects, axis=0), losing)
        else:
            ranked = lists.load(directory / "bias.csv")
        return float(ranked["mean"][: self.edit.n_per_step].sum())

    def search(self, point: Point, losing: str) -> Searched:
        """Find the latents of one SAE that could be edited, and try how many of them to edit.

        losing: the condition that CLIP reads worse.
        Ranked latents, and those of the list `bias`, are searched step by step in the edited model. The list
        `perception` is taken as it is.
        """
        spliced, pairs, directory = self.spliced(point), self.pairs, ANALYSIS_DPATH / str(point)
        tests = lists.read_table(directory / "latents.csv", ["latent", "mean_cls", "mean_patch"])
        means = tests[["mean_cls", "mean_patch"]].to_numpy().T
        edited_images = EditedImages(spliced, pairs, self.edit, means)
        gains = Gains(edited_images, losing)
        if self.edit.latents == "perception":
            found = lists.load(directory / "perception.csv")
            good = found["latent"].tolist()
        else:
            pooled = PooledLatents.load(directory / "pooled.zarr")
            images = pairs.positions(self.data.audit_rows())
            candidates = candidate_latents(pooled, images, np.tile(pairs.women, 2))
            found, good = find_step_by_step(
                EditedEffects(edited_images, candidates),
                candidates,
                self._ranking(losing),
                gains.accept,
                n_per_step=self.edit.n_per_step,
                n_most=self.edit.n_latents,
            )
        best = best_edit(gains.curve(good), self.edit.max_cost)
        edited = found.set_index("latent", drop=False).loc[good[: int(best["n_latents"])]].reset_index(drop=True)
        return Searched(found, edited, best)


def with_edits(table: pd.DataFrame, searched: dict[int, Searched]) -> pd.DataFrame:
    """Add what the best edit of each SAE does on discovery women.

    table: a row per SAE, from `collect`. searched: the searches, by index of a row.
    Returns the table with more columns: searched (1 if the SAE was searched, else 0), n_edited (number of latents of
    the best edit; 0 if no edit helps), and the changes by this edit, NaN for an SAE that was not searched:
        gain                   rise of R in the losing condition, nats
        other_change           change of R in the other condition, nats
        net_gain               gain - |other_change|
        accuracy_gain          rise of accuracy in the losing condition
        other_accuracy_loss    fall of accuracy in the other condition
    """
    edits = {i: {"n_edited": len(s.edited), **s.gains[list(GAINS)]} for i, s in searched.items()}
    found = pd.DataFrame.from_dict(edits, orient="index", columns=["n_edited", *GAINS]).reindex(table.index)
    found["n_edited"] = found["n_edited"].fillna(0).astype(int)
    return table.assign(searched=table.index.isin(list(searched)).astype(int)).join(
        found.astype({g: float for g in GAINS})
    )


def choose(table: pd.DataFrame, config: SelectSae, losing: str | None) -> tuple[pd.Series, str]:
    """Choose one SAE by the rule in params.yaml.

    table: a row per SAE, from `with_edits`.
    config: `rule` is one of three.
        net_gain: take the SAE whose best edit has the largest net gain. If no edit helps, or if CLIP reads both
            conditions alike, take the SAE with the lowest FVU (fraction of variance unexplained) on the images it was
            trained on.
        published, fixed: take the SAE on the shortlist.
    losing: the condition that CLIP reads worse; None if there is no such gap.
    Returns the row of the chosen SAE, and the reason in words.
    Raises ParamsError if the rule is `fixed` and the grid has no such SAE.
    """
    if config.rule == "fixed":
        return table.loc[shortlist(table, config, Edit.model_construct())[0]], "fixed in params.yaml"
    if config.rule == "published":
        best = table.loc[(table["auc_discovery"] - 0.5).abs().idxmax()]
        return best, f"its published AUC on discovery women is the farthest from one half ({best['auc_discovery']:.3f})"
    helps = table[table["n_edited"] > 0]
    if losing is None or helps.empty:
        tried = "no edit helped on discovery women" if table["searched"].any() else "no latent to edit was found"
        no_edit = "CLIP reads both conditions alike" if losing is None else tried
        return table.loc[table["train_fvu"].idxmin()], f"{no_edit}, so the SAE with the lowest FVU was taken"
    best = helps.loc[helps["net_gain"].idxmax()]
    names = [figures.CONDITION_LABELS[condition] for condition in (losing, OTHER_CONDITION[losing])]
    return best, (
        f"on discovery women, an edit of {best['n_edited']:.0f} latents gives {names[0]} images a gain of "
        f"{best['gain']:.2f} nats in the log-probability of the true emotion and {100 * best['accuracy_gain']:.1f} "
        f"points of accuracy; {names[1]} images change by {best['other_change']:.2f} nats and lose "
        f"{100 * best['other_accuracy_loss']:.1f} points"
    )


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
    parts = [read_history(point).assign(layer=point.layer, expansion=point.expansion) for point in points(grid)]
    return pd.concat(parts, ignore_index=True)


def draw_statistics(
    audit: Audit, point: Point, tests: pd.DataFrame, found: dict[LatentList, pd.DataFrame], config: SelectSae
) -> None:
    """Draw the statistics of the chosen SAE as the published study shows them, into plots/select_sae_statistics.png.

    audit: the images. point: the chosen SAE. tests: a row per latent, with act_mean and eff_mean (mean gaps).
    found: both lists of latents. config: number of candidates and of clusters, and the seed of PCA and K-means.
    """
    values = PooledLatents.load(ANALYSIS_DPATH / str(point) / "pooled.zarr").mean
    condition = audit.data.table["condition"].to_numpy()[audit.data.audit_rows()]
    scores, tried = clusters(values, config.max_clusters, config.seed)
    figure = drawing.draw(point, values, condition, tests, found, scores, tried, config.n_candidates)
    figures.save(figure, STATISTICS_FPATH)


def selection(
    chosen: pd.Series, gap: ReadoutGap, losing: str | None, edited: pd.DataFrame, edit: Edit
) -> dict[str, Any]:
    """Describe the choice, for selection.json, without the reason.

    chosen: the row of the chosen SAE. gap: how CLIP reads both conditions. losing: the condition that it reads worse.
    edited: the latents to edit, a row per latent. edit: the list that they come from.
    """
    return {
        "layer": int(chosen["layer"]),
        "expansion": int(chosen["expansion"]),
        "list": edit.latents,
        "latents": edited["latent"].tolist(),
        "losing": losing or "none",
        "gap": gap.R.as_metrics(),
        "skill": gap.skill,
    }


def main() -> None:
    params.command_line(__doc__).parse_args()
    compute, grid, inference, edit, config = params.load(Compute, Grid, Inference, Edit, SelectSae)
    every = points(grid)
    audit = Audit(vit.load(CLIP_DPATH, compute), dataset.load(DATASET_DPATH), inference, edit, config.batch_size)
    gap = audit.gap(every[-1])
    losing = gap.losing(inference)
    measured = collect(grid).assign(promise=[audit.promise(point, losing) for point in every])
    tried = shortlist(measured, config, edit) if losing else []
    searched = {i: audit.search(every[i], losing) for i in progress(tried, "search SAEs") if losing}
    table = with_edits(measured, searched)
    chosen, why = choose(table, config, losing)
    name = str(Point(int(chosen["layer"]), int(chosen["expansion"])))
    found: dict[LatentList, pd.DataFrame] = {
        kind: lists.load(ANALYSIS_DPATH / name / f"{kind}.csv") for kind in get_args(LatentList)
    }
    edited = found["bias"][:0]
    if chosen.name in searched:
        edited = searched[int(chosen.name)].edited
        if edit.latents == "bias":
            found["bias"] = searched[int(chosen.name)].found
    tests = outs.read_table(ANALYSIS_DPATH / name / "latents.csv", "analyse_sae", TESTS)
    described = tests[[*TESTS]]
    chosen_edit = selection(chosen, gap, losing, edited, edit)
    with outs.atomic_output(SELECTION_DPATH) as directory:
        shutil.copytree(SAE_DPATH / name, directory / "sae")
        shutil.copy(ANALYSIS_DPATH / name / "latents.csv", directory / "tests.csv")
        for kind, listed in found.items():
            outs.write_table(directory / f"{kind}.csv", listed)
        outs.write_table(directory / "latents.csv", edited.merge(described, on="latent"))
        (directory / "selection.json").write_text(json.dumps({**chosen_edit, "why": why}, indent=2) + "\n")
    with outs.atomic_output(BY_IMAGE_DPATH) as directory:
        directory.mkdir()
        shutil.copytree(ANALYSIS_DPATH / name / "pooled.zarr", directory / "pooled.zarr")
        shutil.copy(ANALYSIS_DPATH / name / "top_images.csv", directory)
    draw_statistics(audit, Point(chosen_edit["layer"], chosen_edit["expansion"]), tests, found, config)
    keys = (grid_drawing.judged_fvu(table), "auc", "mwu_p", "n_bias", "n_perception")
    metrics = {
        "layer": chosen_edit["layer"],
        "expansion": chosen_edit["expansion"],
        "d_sae": len(tests),
        "n_latents": len(edited),
        "R_gap": gap.R.estimate,
        **{key: float(chosen[key]) for key in keys},
        **({key: float(chosen[key]) for key in GAINS} if len(edited) else {}),
    }
    outs.write_metrics(METRICS_FPATH, metrics)
    outs.write_table(TABLE_FPATH, table.assign(chosen=(table.index == chosen.name).astype(int)))
    outs.write_table(CURVES_FPATH, curves(grid))
    grid_drawing.draw(table, chosen, PLOT_FPATH)


if __name__ == "__main__":
    run_command(main)

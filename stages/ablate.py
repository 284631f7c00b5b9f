"""The causal test: edit the chosen latents inside CLIP and see what comes back, on women no choice was made on.

reads    data/selection, data/dataset, data/clip, data/activations
writes   metrics/ablate.json (in short), metrics/full/ablate.json (with intervals), plots/ablate.csv (outcomes image by
         image), plots/ablate_arms.csv (accuracies), plots/ablate_dose.csv (dose-response), plots/ablate_controls.csv
         (random sets), plots/ablate.png
claims   what the edit does to the emotion gap and to CLIP's reliance on bust and face, beside damage without
         meaning, random sets of like latents, and baselines that need no SAE (`core/arms.py`)

Primary endpoints, fixed before looking: the emotion gap (R and accuracy), and region reliance.

    torchrun --nproc-per-node 8 -m stages.ablate      # the images shared by as many processes
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stages.core import (
    arms,
    association,
    causal,
    compute,
    dataset,
    figures,
    intervene,
    outs,
    params,
    sections,
    selection,
    store,
    vit,
)
from stages.core.causal import BEFORE_AND_AFTER, Tried, Women
from stages.core.curves import GREY
from stages.core.dataset import CLOTHED, CONDITIONS, REGIONS, SEMI_NUDE
from stages.core.encoding import PLANTED
from stages.core.figures import Axes
from stages.core.intervene import Edit
from stages.core.selection import Selection
from stages.core.splice import Arm, Outcomes, Pictures, Splice

DATASET_DPATH, CLIP_DPATH, ACTIVATIONS_DPATH = Path("data/dataset"), Path("data/clip"), Path("data/activations")
SELECTION_DPATH = Path("data/selection")
METRICS_FPATH, FULL_FPATH = Path("metrics/ablate.json"), Path("metrics/full/ablate.json")
TABLE_FPATH, PLOT_FPATH = Path("plots/ablate.csv"), Path("plots/ablate.png")
ARMS_FPATH = Path("plots/ablate_arms.csv")
DOSE_FPATH, CONTROLS_FPATH = Path("plots/ablate_dose.csv"), Path("plots/ablate_controls.csv")
SHARES = tuple(np.arange(20, 0, -1) / 20)  # of what a baseline does, the largest first
SHOWN_ARMS = (
    "original",
    "reconstructed",
    "noise",
    "random_direction",
    "difference_in_means",
    "colour_subspace",
    "colour_subspace_at_last_block",
    "colour_subspace_within_cost",
    "ranked_once",
    "shuffled_labels",
    "swapped",
    "edited",
    *(f"edited_{scope}" for scope in arms.SCOPES),
)


def control_sets(chosen: Selection, n_sets: int, seed: int) -> np.ndarray:
    """Random latents like the chosen ones: firing rate, and mean activation on class token and patches (log scales)."""
    if not len(chosen.latents):
        return np.zeros((n_sets, 0), dtype=np.int64)
    t = chosen.tests
    features = t[["firing", "mean_cls", "mean_patch"]].to_numpy()
    profile = np.log(features + 1e-6)
    profile[t["firing"] == 0] = np.nan
    return intervene.matched_sets(chosen.latents, profile, n_sets, seed)


def dose_response(
    splice: Splice, chosen: Selection, config: sections.Edit, scales: list[float], women: Women
) -> pd.DataFrame:
    """Both conditions over the number of latents edited, and over the factor on the chosen ones."""
    sizes = [0, *sorted({min(k, len(chosen.latents)) for k in config.curve} - {0})]
    by_size = [chosen.arm(splice, config, chosen.latents[:k]) for k in sizes]
    latents = torch.tensor(chosen.latents, device=splice.clip.device)
    by_scale = [splice.arm(Edit(latents=latents, kind="scale", factor=s), config.scope) for s in scales]
    doses = [("n_latents", float(k)) for k in sizes] + [("scale", s) for s in scales]
    outcomes = splice.outcomes(women.rows, by_size + by_scale)
    rows = []
    for i, (kind, dose) in enumerate(doses):
        for condition in CONDITIONS:
            for name, values in (("accuracy", outcomes.correct), ("R", outcomes.R)):
                found = women.interval(women.split(values[i])[condition])
                rows.append(
                    {"dose": kind, "value": dose, "condition": condition, "endpoint": name, **found.as_metrics()}
                )
    return pd.DataFrame(rows)


def control_outcomes(
    splice: Splice, women: Women, original: Outcomes, sets: np.ndarray, config: sections.Edit, chosen: Selection
) -> pd.DataFrame:
    """A row per random set: what it gives semi-nude images, costs clothed ones, and leaves of reliance on the bust."""
    tried = [chosen.arm(splice, config, latents) for latents in sets]
    found = splice.outcomes(women.rows, tried)
    semi_nude = women.pairs[SEMI_NUDE].to_numpy()
    without_bust = splice.outcomes(semi_nude, tried, greyed_out(splice, "bust"))
    rows = {"bust_reliance_R": (without_bust.R - women.split(found.R)[SEMI_NUDE]).mean(1)}
    for name, values, start in (("accuracy", found.correct, original.correct), ("R", found.R, original.R)):
        change = women.split(values - start)
        rows[f"semi_nude_{name}_gain"] = change[SEMI_NUDE].mean(1)
        rows[f"clothed_{name}_loss"] = -change[CLOTHED].mean(1)
    return pd.DataFrame(rows)


def what_embeddings_hold(splice: Splice, women: Women, arm: Arm) -> dict[str, float]:
    """Secondary: the association effect size of both conditions, and whether the condition can still be told.

    A linear probe is fitted on discovery women and judged on confirmation women: an edit that only blinds the model to
    the garment would leave it at chance, .5.
    """
    from sklearn.linear_model import LogisticRegression

    held_out = splice.embeddings(women.rows, arm)
    prompts = splice.readout.prompts.cpu().numpy()
    associated = women.split(association.association(held_out, prompts, splice.data.emotion_index(women.rows)))
    pairs = splice.data.pairs("discovery")
    seen = splice.embeddings(np.concatenate([pairs[condition] for condition in CONDITIONS]), arm)
    labels = [np.repeat(CONDITIONS, len(x) // len(CONDITIONS)) for x in (seen, held_out)]
    probe = LogisticRegression(max_iter=1000).fit(seen, labels[0])
    return {
        "association_effect_size": association.effect_size(associated[SEMI_NUDE], associated[CLOTHED]),
        "condition_decodable": float(probe.score(held_out, labels[1])),
    }


def at_last_block(splice: Splice, women: Women, cost: float) -> Tried | None:
    """The subspace of the colours' means, projected out after the last block: whole, and as much of it as the edit may
    cost clothed women.

    None where no colours were planted, or where there are no activations of the last block, of this model and data.
    """
    place = ACTIVATIONS_DPATH / f"l{splice.clip.n_layers}.zarr"
    if PLANTED not in splice.data.table or not place.exists():
        return None
    last = replace(splice, layer=splice.clip.n_layers, activations=store.open(place))
    ours, theirs = splice.activations.provenance, last.activations.provenance
    if any(ours[key] != theirs[key] for key in ("model", "dataset_sha256")):
        return None
    whole = arms.colour_subspace(last)
    found = {"colour_subspace_at_last_block": whole, "colour_subspace_within_cost": within_cost(last, whole, cost)}
    return Tried(found, last.outcomes(women.rows, list(found.values())))


def within_cost(splice: Splice, arm: Arm, cost: float) -> Arm:
    """The largest share of an arm that costs clothed discovery women no more accuracy than `cost`."""
    clothed = splice.data.pairs("discovery")[CLOTHED].to_numpy()
    tried = [arms.partly(arm, share) for share in (*SHARES, 0.0)]
    accuracy = splice.outcomes(clothed, tried).correct.mean(1)
    return next(arm for arm, found in zip(tried, accuracy, strict=True) if found >= accuracy[-1] - cost)


def greyed_out(splice: Splice, region: str) -> Pictures:
    """The images with a region greyed out."""

    def pictures(rows: np.ndarray) -> np.ndarray:
        inside = splice.data.mask(region, rows)[..., None] >= 128
        return np.where(inside, np.uint8(GREY), splice.data.images(rows))

    return pictures


def headline(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The estimates that answer the question, without their intervals."""
    shown = {"semi_nude": "original", "semi_nude_bust_greyed": "bust_greyed", "semi_nude_edited": "edited"}
    accuracy = {name: found["accuracy"][arm][SEMI_NUDE]["estimate"] for name, arm in shown.items()}
    clothed = {"clothed": "original", "clothed_edited": "edited"}
    accuracy |= {name: found["accuracy"][arm][CLOTHED]["estimate"] for name, arm in clothed.items()}
    return {
        "accuracy": accuracy,
        "R_gap": {arm: found["R"][arm]["gap"]["estimate"] for arm in BEFORE_AND_AFTER},
        "bust_reliance": {arm: found["reliance"][arm]["bust"]["R"][SEMI_NUDE]["estimate"] for arm in BEFORE_AND_AFTER},
        "p_random_sets": {name: judged["p_random_sets"] for name, judged in found["edit"].items()},
    }


def accuracies(found: dict[str, Any]) -> pd.DataFrame:
    """A row per arm and condition: estimate, low, high."""
    return pd.DataFrame(
        [
            {"arm": arm.replace("_", " "), "condition": condition, **by[condition]}
            for arm, by in found["accuracy"].items()
            for condition in CONDITIONS
        ]
    )


def tabulate(women: Women, tried: Tried, data: dataset.Dataset) -> pd.DataFrame:
    """A row per arm and image."""
    labels = data.table.iloc[women.rows][["identity", "condition", "emotion", "pair"]]
    parts = [labels.assign(row=women.rows, arm=name, **vars(tried.of(name))) for name in tried.arms]
    return pd.concat(parts, ignore_index=True)


def draw(metrics: dict, dose: pd.DataFrame, controls: pd.DataFrame, fpath: Path) -> None:
    """Accuracy by arm; dose-response with the control cloud; reliance before and after."""
    figure, axes = figures.panels(3, "The causal test, on confirmation women", cell=(5.2, 4.2))
    _draw_arms(axes[0, 0], metrics)
    _draw_dose(axes[0, 1], dose, controls, metrics)
    _draw_reliance(axes[0, 2], metrics)
    figures.save(figure, fpath)


def _draw_arms(ax: Axes, metrics: dict) -> None:
    shown = [arm for arm in SHOWN_ARMS if arm in metrics["accuracy"]]
    for offset, condition in ((-0.13, SEMI_NUDE), (0.13, CLOTHED)):
        for y, arm in enumerate(shown):
            found = metrics["accuracy"][arm][condition]
            colour = figures.CONDITION_COLOURS[condition]
            ax.plot([found["low"], found["high"]], [y + offset] * 2, color=colour, lw=2.2)
            label = figures.CONDITION_LABELS[condition] if y == 0 else None
            ax.plot(found["estimate"], y + offset, "o", color=colour, ms=5, label=label)
    ax.set_yticks(range(len(shown)), [arm.replace("_", " ") for arm in shown], fontsize=8.5)
    ax.set(xlim=(-0.02, 1.04), ylim=(len(shown) - 0.4, -0.6), xlabel="emotion accuracy", title="Arms")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _draw_dose(ax: Axes, dose: pd.DataFrame, controls: pd.DataFrame, metrics: dict) -> None:
    start = metrics["accuracy"]["original"][SEMI_NUDE]["estimate"]
    part = dose[(dose["dose"] == "n_latents") & (dose["endpoint"] == "accuracy")]
    for condition in CONDITIONS:
        line = part[part["condition"] == condition]
        colour = figures.CONDITION_COLOURS[condition]
        ax.plot(line["value"], line["estimate"], "o-", color=colour, label=figures.CONDITION_LABELS[condition])
        ax.fill_between(line["value"], line["low"], line["high"], color=colour, alpha=0.2, lw=0)
    spread = np.random.default_rng(0).uniform(-0.15, 0.15, len(controls))
    x = part["value"].max() + spread
    ax.plot(
        x,
        start + controls["semi_nude_accuracy_gain"],
        ".",
        color=figures.GREY,
        ms=3,
        label=f"{len(controls)} random sets, semi-nude",
    )
    ax.set(
        xlabel="latents edited, in the order found",
        ylabel="emotion accuracy",
        ylim=(-0.02, 1.04),
        title="Dose and response",
    )
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _draw_reliance(ax: Axes, metrics: dict) -> None:
    labels, rows, colours = [], [], []
    for region in REGIONS:
        for arm in BEFORE_AND_AFTER:
            for condition in CONDITIONS:
                labels.append(f"{region}, {figures.CONDITION_LABELS[condition]}, {arm}")
                rows.append(metrics["reliance"][arm][region]["R"][condition])
                colours.append(figures.CONDITION_COLOURS[condition])
    figures.interval_bars(ax, labels, rows, colours)
    ax.axvline(0, color="black", lw=0.7)
    ax.set(xlabel="change of R when greyed out (nats)", title="Above 0 it misleads, below it is needed")


def main() -> None:
    params.command_line(__doc__).parse_args()
    config = params.load("compute", "inference", "edit", "ablate")
    clip, data = vit.load(CLIP_DPATH, config.compute), dataset.load(DATASET_DPATH)
    chosen = selection.load(SELECTION_DPATH)
    group = compute.join(clip.device)
    splice = chosen.splice(clip, data, ACTIVATIONS_DPATH, config.ablate.batch_size, group)
    women = Women(data.pairs("confirmation"), data.emotions, config.inference)
    every_arm = arms.of(splice, chosen, config.edit, config.ablate.seed)
    tried = Tried(every_arm, splice.outcomes(women.rows, list(every_arm.values())))
    if further := at_last_block(splice, women, config.edit.clothed_cost):
        tried = tried | further
    sets = control_sets(chosen, config.ablate.n_random_sets, config.ablate.seed)
    controls = control_outcomes(splice, women, tried.of("original"), sets, config.edit, chosen)
    dose = dose_response(splice, chosen, config.edit, config.ablate.scales, women)
    relying = {name: every_arm[name] for name in BEFORE_AND_AFTER}
    greyed = {
        region: Tried(relying, splice.outcomes(women.rows, list(relying.values()), greyed_out(splice, region)))
        for region in REGIONS
    }
    found = {
        **causal.summarise(women, tried, [name for name in SHOWN_ARMS if name in tried.arms], greyed),
        "edit": causal.judge_edit(women, tried, greyed, controls),
        "reliance": {arm: causal.summarise_reliance(women, tried, greyed, arm) for arm in BEFORE_AND_AFTER},
        "guardrails": causal.guard(women, tried),
        "embeddings": {name: what_embeddings_hold(splice, women, tried.arms[name]) for name in BEFORE_AND_AFTER},
    }
    if group.first:
        outs.write_metrics(FULL_FPATH, found)
        outs.write_metrics(METRICS_FPATH, headline(found))
        outs.write_table(TABLE_FPATH, tabulate(women, tried, data))
        outs.write_table(ARMS_FPATH, accuracies(found))
        outs.write_table(DOSE_FPATH, dose)
        outs.write_table(CONTROLS_FPATH, controls.rename_axis("set").reset_index())
        draw(found, dose, controls, PLOT_FPATH)
    compute.part()


if __name__ == "__main__":
    main()

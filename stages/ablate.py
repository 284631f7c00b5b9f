"""The causal test: edit the chosen latents inside CLIP, and measure the outcome on confirmation women.

reads    data/selection, data/selection_by_image, data/dataset, data/clip, data/activations
writes   metrics/ablate.json (estimates), metrics/full/ablate.json (with intervals), plots/ablate.csv (outcomes of each
         image), plots/ablate_arms.csv (accuracies), plots/ablate_dose.csv (dose-response), plots/ablate_controls.csv
         (random sets), plots/ablate_null_searches.csv (searches on labels that mean nothing), plots/ablate.png
claims   how the edit changes the emotion gap and CLIP's reliance on bust and face, compared with the same search on
         labels that mean nothing (`core/ablation/null_searches.py`), with random sets of latents that are as
         active, contribute as much and move the tokens as far (`core/ablation/controls.py`), with meaningless
         damage, and with baselines that need no SAE (`core/ablation/arms.py`)

No SAE, latent or edit was chosen on confirmation women. The primary endpoints were fixed before any result was seen:
the emotion gap (R and accuracy), and region reliance.

splice     the point after one block of CLIP where the chosen SAE reads the residual stream
arm        a function that changes the tokens at the splice: the edit, a baseline, noise, or no change (original)
R          log-probability of the true emotion, nats
losing     the condition that CLIP reads worse on discovery women; semi-nude if it reads both alike
gain       of an edit: rise of R or accuracy in the losing condition; cost: fall in the other condition
reliance   change of R or accuracy when a region of the image is greyed out: above 0 the region misleads CLIP, below 0
           CLIP needs it

    torchrun --nproc-per-node 8 -m stages.ablate      # eight processes share the images
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stages.core import figures, store
from stages.core.ablation import association, controls, null_searches, set_totals
from stages.core.ablation.arms import ARMS, ArmInputs, at_last_block, build_arms
from stages.core.ablation.endpoints import BEFORE_AND_AFTER, ENDPOINTS, ArmOutcomes, CausalTest
from stages.core.clip import vit
from stages.core.data import dataset
from stages.core.data.dataset import Dataset
from stages.core.figures import Axes
from stages.core.latents import selection
from stages.core.latents.edit_curve import edit_sizes
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.spliced_clip import Arm, ImageSource, Outcomes, SplicedClip
from stages.core.paired import Pairs
from stages.core.run import outs, params
from stages.core.run.compute import join_ranks, leave_ranks
from stages.core.run.errors import run_command
from stages.core.run.labels import CLOTHED, CONDITIONS, GREY, OTHER_CONDITION, REGIONS, SEMI_NUDE
from stages.core.schema import Ablate, Compute, Edit, Grid, Inference

DATASET_DPATH, CLIP_DPATH, ACTIVATIONS_DPATH = Path("data/dataset"), Path("data/clip"), Path("data/activations")
SELECTION_DPATH, BY_IMAGE_DPATH = Path("data/selection"), Path("data/selection_by_image")
METRICS_FPATH, FULL_FPATH = Path("metrics/ablate.json"), Path("metrics/full/ablate.json")
TABLE_FPATH, PLOT_FPATH = Path("plots/ablate.csv"), Path("plots/ablate.png")
ARMS_FPATH, NULLS_FPATH = Path("plots/ablate_arms.csv"), Path("plots/ablate_null_searches.csv")
DOSE_FPATH, CONTROLS_FPATH = Path("plots/ablate_dose.csv"), Path("plots/ablate_controls.csv")
SET_COLUMNS = ("accuracy_gain", "R_gain", "accuracy_cost", "R_cost")
SHOWN_ARMS = [name for name, entry in ARMS.items() if entry.shown]


def run_arms(inputs: ArmInputs, pairs: Pairs, layers: list[int]) -> ArmOutcomes:
    """Run every arm of the causal test over the images of the pairs.

    An arm is a function that changes the tokens at the splice (the point where the SAE reads the residual stream). Some
    arms act after the last block instead. Those arms run only if the activations of that block were stored.

    inputs: what the arms are built from: CLIP with the SAE (`spliced`), the chosen latents (`chosen`), how latents are
        edited (`edit`), and the seed of arms that draw at random (`seed`).
    pairs: the pairs of images to run. A pair shows one woman with one expression, semi-nude and clothed.
    layers: the layers whose activations were stored (`grid.layers`).
    Returns the arms by name, and their outcomes. Each outcome is an array [arm, image], with the images in the order of
    `pairs.rows` (all semi-nude images, then all clothed images):
        R          log-probability of the true emotion, nats
        correct    1 if the model recognises the true emotion, else 0
        cosine     cosine of the embedding with that of the original model
    Raises StoreError if the stored activations of the last block are missing or belong to a different data set. Raises
    DamagedError if they are damaged.
    """
    arms = build_arms(inputs)
    found = ArmOutcomes(arms, inputs.spliced.outcomes(pairs.rows, list(arms.values())))
    last_layer = inputs.spliced.clip.n_layers
    if last_layer not in layers:
        return found
    last = at_last_block(inputs, store.open(ACTIVATIONS_DPATH / f"l{last_layer}.zarr", inputs.spliced.data))
    arms = build_arms(last, at_last_block=True)
    return found | ArmOutcomes(arms, last.spliced.outcomes(pairs.rows, list(arms.values()))) if arms else found


def greyed_out(spliced: SplicedClip, region: str) -> ImageSource:
    """Return a function that greys out one region of images.

    spliced: CLIP with the SAE. Its data set gives the images and the masks of the region.
    region: bust or face.
    The returned function takes row numbers of images in the data set's table (`spliced.data.table`). It returns the RGB
    pixels of these images, an array [image, height, width, 3]. The pixels inside the region are grey.
    """

    def pixels(rows: np.ndarray) -> np.ndarray:
        inside = spliced.data.mask(region, rows)[..., None] >= 128
        return np.where(inside, np.uint8(GREY), spliced.data.images(rows))

    return pixels


def run_greyed(spliced: SplicedClip, pairs: Pairs, arms: dict[str, Arm]) -> dict[str, ArmOutcomes]:
    """Run the given arms over the images of the pairs: once with the bust, once with the face greyed out.

    spliced: CLIP with the SAE. Its data set gives the images and the masks of the regions.
    pairs: the pairs of images to run. A pair shows one woman with one expression, semi-nude and clothed.
    arms: functions that change the tokens at the splice (the point where the SAE reads the residual stream), by name.
    Returns, for each region (bust, face), the arms and their outcomes. Each outcome is an array [arm, image], with the
    images in the order of `pairs.rows` (all semi-nude images, then all clothed images):
        R          log-probability of the true emotion, nats
        correct    1 if the model recognises the true emotion, else 0
        cosine     cosine of the embedding with that of the original model on the same greyed image
    """
    return {
        region: ArmOutcomes(arms, spliced.outcomes(pairs.rows, list(arms.values()), greyed_out(spliced, region)))
        for region in REGIONS
    }


def dose_response(inputs: ArmInputs, scales: list[float], pairs: Pairs, inference: Inference) -> pd.DataFrame:
    """Measure accuracy and R (log-probability of the true emotion, nats) for several doses of the edit.

    There are two kinds of dose. The dose n_latents is a number k: the first k chosen latents are edited. The values of
    k are 0, those in `edit.curve` below the number of chosen latents, and this number. The dose scale is a factor: all
    chosen latents are multiplied by it.

    inputs: CLIP with the SAE (`spliced`), the chosen latents (`chosen`), and how latents are edited (`edit`).
    scales: the factors.
    pairs: the pairs of images to measure on.
    inference: settings of the intervals.
    Returns a row per dose, condition and endpoint:
        dose, value            kind of dose (n_latents or scale), and the number of latents or the factor
        condition, endpoint    semi_nude or clothed; accuracy or R
        estimate, low, high    mean over images, with its interval over women
    """
    spliced, chosen, edit = inputs.spliced, inputs.chosen, inputs.edit
    sizes = edit_sizes(edit, len(chosen.latents))
    by_size = [spliced.selected_edit_arm(chosen, edit, chosen.latents[:k]) for k in sizes]
    latents = torch.tensor(chosen.latents, device=spliced.clip.device)
    by_scale = [spliced.edit_arm(LatentEdit(latents=latents, kind="scale", factor=s), edit.scope) for s in scales]
    doses = [("n_latents", float(k)) for k in sizes] + [("scale", s) for s in scales]
    outcomes = spliced.outcomes(pairs.rows, by_size + by_scale)
    rows = []
    for i, (kind, dose) in enumerate(doses):
        for condition in CONDITIONS:
            for name, values in (("accuracy", outcomes.correct), ("R", outcomes.R)):
                found = pairs.interval(pairs.split(values[i])[condition], inference, ENDPOINTS[name])
                rows.append(
                    {"dose": kind, "value": dose, "condition": condition, "endpoint": name, **found.as_metrics()}
                )
    return pd.DataFrame(rows)


def outcomes_of_sets(inputs: ArmInputs, pairs: Pairs, original: Outcomes, sets: np.ndarray) -> pd.DataFrame:
    """Edit each of several other sets of latents, and measure the gain and the cost of each edit.

    Each set is edited in the same way as the chosen latents. All results are means over images.

    inputs: CLIP with the SAE (`spliced`), the chosen latents (`chosen`), and how latents are edited (`edit`).
    pairs: the pairs of images to measure on.
    original: outcomes of the unedited model on the images of the pairs, in the order of `pairs.rows`.
    sets: an array [set, latent] with the indices of the latents of each set.
    Returns a row per set. R is the log-probability of the true emotion, nats.
        accuracy_gain, R_gain    rise in the losing condition, against the unedited model
        accuracy_cost, R_cost    fall in the other condition, against the unedited model
    """
    if not sets.size:
        return pd.DataFrame({name: np.zeros(0) for name in SET_COLUMNS})
    losing, rows = inputs.chosen.judged, {}
    found = inputs.spliced.outcomes(pairs.rows, edits_of_sets(inputs, sets))
    for name, values, start in (("accuracy", found.correct, original.correct), ("R", found.R, original.R)):
        change = pairs.split(values - start)
        rows[f"{name}_gain"] = change[losing].mean(1)
        rows[f"{name}_cost"] = -change[OTHER_CONDITION[losing]].mean(1)
    return pd.DataFrame(rows)[list(SET_COLUMNS)]


def edits_of_sets(inputs: ArmInputs, sets: np.ndarray) -> list[Arm]:
    """Build for each set of latents, a row of `sets`, the arm that edits it as the chosen latents are edited."""
    return [inputs.spliced.selected_edit_arm(inputs.chosen, inputs.edit, latents) for latents in sets]


def R_without_bust(inputs: ArmInputs, pairs: Pairs, sets: np.ndarray) -> np.ndarray:
    """Measure R on images of the losing condition with the bust greyed out, while a set of latents is edited.

    inputs: CLIP with the SAE (`spliced`), the chosen latents (`chosen`), and how latents are edited (`edit`).
    pairs: the pairs of images to measure on.
    sets: an array [set, latent] with the indices of the latents of each set.
    Returns the mean log-probability of the true emotion (nats) for each set.
    """
    if not sets.size:
        return np.zeros(0)
    spliced, rows = inputs.spliced, pairs.table[inputs.chosen.judged].to_numpy()
    return spliced.outcomes(rows, edits_of_sets(inputs, sets), greyed_out(spliced, "bust")).R.mean(1)


def random_sets(
    inputs: ArmInputs, pairs: Pairs, original: Outcomes, n_sets: int
) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """Edit random sets of latents that are like the chosen ones (`core/ablation/controls.py`).

    inputs: CLIP with the SAE (`spliced`), the chosen latents (`chosen`), how latents are edited (`edit`), and the seed.
    pairs: the pairs of images to measure on.
    original: outcomes of the unedited model on the images of the pairs, in the order of `pairs.rows`.
    n_sets: number of random sets.
    Returns a table and a dictionary. The table has a row per set, with the columns of `outcomes_of_sets` and
    bust_reliance_R: R with the bust greyed out minus R with the full image, in the losing condition; the set is edited
    in both cases. The dictionary compares the totals of the chosen latents with those of the sets (`controls.compare`).
    """
    chosen = inputs.chosen
    totals = set_totals.measure(inputs.spliced, chosen, inputs.edit)
    sets = controls.control_sets(chosen.latents, totals, n_sets, inputs.seed)
    found = outcomes_of_sets(inputs, pairs, original, sets)
    whole = pairs.split(original.R)[chosen.judged].mean() + found["R_gain"]
    found["bust_reliance_R"] = R_without_bust(inputs, pairs, sets) - whole
    return found, controls.compare(chosen.latents, sets, totals)


def what_embeddings_hold(spliced: SplicedClip, pairs: Pairs, arm: Arm) -> dict[str, float]:
    """Measure what the image embeddings say about emotion and condition (secondary endpoints).

    A linear probe learns on discovery women (women used for choosing) to tell semi-nude from clothed images. Its
    accuracy is then measured on the images of `pairs`. An accuracy of .5 is chance: the probe cannot tell the
    conditions apart.

    spliced: CLIP with the SAE. It also gives the data set.
    pairs: the pairs to measure on, of confirmation women (women held out, on whom nothing was chosen).
    arm: a function that changes the tokens at the splice (the point where the SAE reads the residual stream). It is
        applied to all images.
    Returns
        association_effect_size    how much more strongly clothed images are associated with their emotion than
                                   semi-nude images, in standard deviations
                                   (`core/ablation/association.py`)
        condition_decodable        accuracy of the probe
    """
    from sklearn.linear_model import LogisticRegression

    held_out = spliced.embeddings(pairs.rows, arm)
    prompts = spliced.readout.prompts.cpu().numpy()
    associated = pairs.split(association.association(held_out, prompts, spliced.data.emotion_index(pairs.rows)))
    seen = spliced.embeddings(Pairs.from_images(spliced.data.table, "discovery").rows, arm)
    labels = [np.repeat(CONDITIONS, len(x) // len(CONDITIONS)) for x in (seen, held_out)]
    probe = LogisticRegression(max_iter=1000).fit(seen, labels[0])
    return {
        "association_effect_size": association.effect_size(associated[SEMI_NUDE], associated[CLOTHED]),
        "condition_decodable": float(probe.score(held_out, labels[1])),
    }


def headline(found: dict[str, Any]) -> dict[str, float]:
    """Choose the finding for the metrics file: eight numbers, without their intervals.

    found: all results, as in metrics/full/ablate.json. The keys used are accuracy and R (each by arm, with intervals),
        edit (p-values against random sets of latents) and null_searches.
    Returns numbers by name. R is the log-probability of the true emotion, nats. `edited` is the model with the edit.
        accuracy_semi_nude, accuracy_clothed           accuracy of the original model on images of the condition
        accuracy_edited, accuracy_clothed_edited       the same of the edited model; semi-nude unless the name says
                                                       clothed
        R_gap, R_gap_edited                            mean R of clothed images minus mean R of semi-nude images
        p_random_sets                                  p-value of the edit's gain in accuracy against the random sets;
                                                       absent if no random sets are like the edited set
        p_null                                         the same against searches on swapped labels; absent if none
                                                       was made
    The last two are absent if nothing was edited.
    """
    original, edited = (found["accuracy"][arm] for arm in BEFORE_AND_AFTER)
    gap, gap_edited = (found["R"][arm]["gap"]["estimate"] for arm in BEFORE_AND_AFTER)
    judged = found["edit"]["accuracy"]
    swapped = found["null_searches"].get(null_searches.SWAPPED)
    return {
        "accuracy_semi_nude": original[SEMI_NUDE]["estimate"],
        "accuracy_edited": edited[SEMI_NUDE]["estimate"],
        "accuracy_clothed": original[CLOTHED]["estimate"],
        "accuracy_clothed_edited": edited[CLOTHED]["estimate"],
        "R_gap": gap,
        "R_gap_edited": gap_edited,
        **{name: judged[name] for name in ["p_random_sets"] if name in judged},
        **({"p_null": swapped["p_accuracy"]} if swapped else {}),
    }


def accuracies(found: dict[str, Any]) -> pd.DataFrame:
    """Tabulate the emotion accuracy of each arm (an intervention on the residual stream).

    found: all results, as in metrics/full/ablate.json. Only the key accuracy is used. This key holds estimate, low and
        high for each arm and condition.
    Returns a row per arm and condition:
        arm                    name of the arm, in words
        condition              semi_nude or clothed
        estimate, low, high    accuracy, with its interval over women
    """
    return pd.DataFrame(
        [
            {"arm": arm.replace("_", " "), "condition": condition, **by[condition]}
            for arm, by in found["accuracy"].items()
            for condition in CONDITIONS
        ]
    )


def tabulate(pairs: Pairs, tried: ArmOutcomes, data: Dataset) -> pd.DataFrame:
    """Tabulate the outcomes of each image under each arm (an intervention on the residual stream).

    pairs: the pairs of images. data: the data set, which gives their labels.
    tried: the arms, and their outcomes on the images of `pairs`. The images are in the order of `pairs.rows`.
    Returns a row per arm and image:
        identity, condition, emotion, pair    labels of the image
        row                                   row number of the image in the data set's table (`data.table`)
        arm                                   name of the arm
        R                                     log-probability of the true emotion, nats
        correct                               1 if the model recognises the true emotion, else 0
        cosine                                cosine of the embedding with that of the original model
    """
    labels = data.table.iloc[pairs.rows][["identity", "condition", "emotion", "pair"]]
    parts = [labels.assign(row=pairs.rows, arm=name, **vars(tried.of_arm(name))) for name in tried.arms]
    return pd.concat(parts, ignore_index=True)


def draw(metrics: dict, dose: pd.DataFrame, by_random_set: pd.DataFrame, losing: str, fpath: Path) -> None:
    """Draw the causal test in three panels, and write the figure to `fpath`.

    Left: accuracy by arm (an intervention on the residual stream) and condition. Middle: accuracy against the number of
    edited latents, and the accuracy when random sets of latents are edited. Right: reliance before and after the edit.
    Reliance is the change of R (log-probability of the true emotion, nats) when bust or face is greyed out. If no
    latent was edited, there is no middle panel, and the others show the model without an edit.

    metrics: all results, as in metrics/full/ablate.json. The keys accuracy (by arm, then condition) and reliance (by
        arm, region, endpoint, then condition) are drawn. Each value has estimate, low and high.
    dose: from `dose_response`. Only the rows with dose n_latents and endpoint accuracy are drawn. The columns drawn are
        value (number of latents), condition, estimate, low and high.
    by_random_set: a row per random set. accuracy_gain is drawn: rise of accuracy in the losing condition.
    losing: the condition that CLIP reads worse.
    """
    edited = bool((dose.loc[dose["dose"] == "n_latents", "value"] > 0).any())
    title = "The causal test, on confirmation women" if edited else "CLIP without an edit, on confirmation women"
    figure, axes = figures.panels(3 if edited else 2, title, cell=(5.2, 4.2))
    shown = [name for name in SHOWN_ARMS if name in metrics["accuracy"] and (edited or ARMS[name].without_edit)]
    _draw_arms(axes[0, 0], metrics["accuracy"], shown)
    if edited:
        _draw_dose(axes[0, 1], dose, by_random_set, losing, metrics["accuracy"]["original"][losing]["estimate"])
    _draw_reliance(axes[0, -1], {arm: metrics["reliance"][arm] for arm in BEFORE_AND_AFTER[: 1 + edited]})
    figures.save(figure, fpath)


def _draw_arms(ax: Axes, accuracy: dict, shown: list[str]) -> None:
    for offset, condition in ((-0.13, SEMI_NUDE), (0.13, CLOTHED)):
        for y, arm in enumerate(shown):
            found = accuracy[arm][condition]
            colour = figures.CONDITION_COLOURS[condition]
            ax.plot([found["low"], found["high"]], [y + offset] * 2, color=colour, lw=2.2)
            label = figures.CONDITION_LABELS[condition] if y == 0 else None
            ax.plot(found["estimate"], y + offset, "o", color=colour, ms=5, label=label)
    ax.set_yticks(range(len(shown)), [arm.replace("_", " ") for arm in shown], fontsize=8.5)
    ax.set(xlim=(-0.02, 1.04), ylim=(len(shown) - 0.4, -0.6), xlabel="emotion accuracy", title="Arms")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _draw_dose(ax: Axes, dose: pd.DataFrame, by_random_set: pd.DataFrame, losing: str, start: float) -> None:
    part = dose[(dose["dose"] == "n_latents") & (dose["endpoint"] == "accuracy")]
    for condition in CONDITIONS:
        line = part[part["condition"] == condition]
        colour = figures.CONDITION_COLOURS[condition]
        ax.plot(line["value"], line["estimate"], "o-", color=colour, label=figures.CONDITION_LABELS[condition])
        ax.fill_between(line["value"], line["low"], line["high"], color=colour, alpha=0.2, lw=0)
    if len(by_random_set):
        x = part["value"].max() + np.random.default_rng(0).uniform(-0.15, 0.15, len(by_random_set))
        label = f"{len(by_random_set)} random sets, {figures.CONDITION_LABELS[losing]}"
        ax.plot(x, start + by_random_set["accuracy_gain"], ".", color=figures.GREY, ms=3, label=label)
    ax.set(
        xlabel="number of latents edited, in the order found",
        ylabel="emotion accuracy",
        ylim=(-0.02, 1.04),
        title="Dose-response",
    )
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _draw_reliance(ax: Axes, reliance: dict) -> None:
    labels, rows, colours = [], [], []
    for region in REGIONS:
        for arm, found in reliance.items():
            for condition in CONDITIONS:
                labels.append(f"{region}, {figures.CONDITION_LABELS[condition]}, {arm}")
                rows.append(found[region]["R"][condition])
                colours.append(figures.CONDITION_COLOURS[condition])
    figures.interval_bars(ax, labels, rows, colours)
    ax.axvline(0, color="black", lw=0.7)
    ax.set(xlabel="change of R when greyed out (nats)", title="Above 0 the region misleads, below 0 it is needed")


def main() -> None:
    params.command_line(__doc__).parse_args()
    compute, grid, inference, edit, ablate = params.load(Compute, Grid, Inference, Edit, Ablate)
    clip, data = vit.load(CLIP_DPATH, compute), dataset.load(DATASET_DPATH)
    chosen, ranks = selection.load(SELECTION_DPATH, BY_IMAGE_DPATH), join_ranks(clip.device)
    spliced = SplicedClip.from_selection(chosen, clip, data, ACTIVATIONS_DPATH, ablate.batch_size, ranks)
    inputs, pairs = ArmInputs(spliced, chosen, edit, ablate.seed), Pairs.from_images(data.table, "confirmation")
    tried = run_arms(inputs, pairs, grid.layers)
    unedited = tried.of_arm("original")
    by_random_set, compared = random_sets(inputs, pairs, unedited, ablate.n_random_sets)
    null_sets = null_searches.null_searches(inputs, ablate.n_null_searches, ablate.n_other_null_searches)
    nulls = [outcomes_of_sets(inputs, pairs, unedited, sets).assign(search=kind) for kind, sets in null_sets.items()]
    searched = pd.concat([pd.DataFrame(columns=[*SET_COLUMNS, "search"]), *nulls], ignore_index=True)
    dose = dose_response(inputs, ablate.scales, pairs, inference)
    relying = {name: tried.arms[name] for name in BEFORE_AND_AFTER}
    test = CausalTest(pairs, inference, chosen.judged, tried, run_greyed(spliced, pairs, relying))
    judged = test.judge_edit(by_random_set if controls.alike(compared) else by_random_set[:0])
    found = {
        **test.summarise_arms([name for name in SHOWN_ARMS if name in tried.arms]),
        "edit": judged,
        "random_sets": compared,
        "null_searches": null_searches.judge(searched, {name: judged[name]["gain"]["estimate"] for name in ENDPOINTS}),
        "reliance": {arm: test.summarise_reliance(arm) for arm in BEFORE_AND_AFTER},
        "guardrails": test.guardrails(len(data.emotions)),
        "embeddings": {name: what_embeddings_hold(spliced, pairs, tried.arms[name]) for name in BEFORE_AND_AFTER},
    }
    if ranks.first:
        outs.write_metrics(FULL_FPATH, found)
        outs.write_metrics(METRICS_FPATH, headline(found))
        outs.write_table(TABLE_FPATH, tabulate(pairs, tried, data))
        outs.write_table(ARMS_FPATH, accuracies(found))
        outs.write_table(DOSE_FPATH, dose)
        outs.write_table(CONTROLS_FPATH, by_random_set.rename_axis("set").reset_index())
        outs.write_table(NULLS_FPATH, searched)
        draw(found, dose, by_random_set, chosen.judged, PLOT_FPATH)
    leave_ranks()


if __name__ == "__main__":
    run_command(main)

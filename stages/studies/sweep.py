"""Runs with known planted bias and several seeds -> power and false positives of the whole pipeline, with intervals.

reads    the metrics of the experiments `bias<b>-seed<s>` that `make sweep` ran, as DVC keeps them
writes   stages/studies/sweep.csv (a row per run, including runs recorded earlier), stages/studies/sweep.png

    python -m stages.studies.sweep        # collect the runs, print the table of stages/studies/README.md

Each run has its own women, its own CLIP and its own SAEs. A run is positive if it names a bias latent. The share of
positive runs is the false-positive rate at bias 0, and the power above 0. Intervals of shares are those of Clopper and
Pearson, which are exact for few runs.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import dvc.api
import numpy as np
import pandas as pd
from dvc.repo import Repo
from scipy import stats

from stages.core import figures
from stages.core.checks.rank_correlation import spearman
from stages.core.run import outs, params
from stages.core.run.labels import CLOTHED, SEMI_NUDE
from stages.core.run.params import PARAMS_FPATH

RUNS_FPATH, PLOT_FPATH = Path(__file__).with_name("sweep.csv"), Path(__file__).with_name("sweep.png")
NAME = re.compile(r"bias(?P<bias>[\d.]+)-seed(?P<seed>\d+)")
CONFIDENCE = 0.95
SHOWN_ACCURACIES = ("semi_nude", "edited", "clothed_edited", "colour_subspace_within_cost")
N_BOOTSTRAP = 2000


def collect() -> pd.DataFrame:
    """Read the results of all runs that DVC keeps as experiments named `bias<b>-seed<s>`.

    Returns a table with a row per run: bias (the planted bias, 0 to 1), seed, and a column per result. Results are
    accuracies, gaps (clothed minus semi-nude), numbers of latents and p-values, such as accuracy_edited and n_bias.
    If several experiments have the same name, one is read, because the name fixes all settings.
    Exits if there is no such experiment.
    """
    with Repo() as repo:
        shas = dict(found for of_baseline in repo.experiments.ls(all_commits=True).values() for found in of_baseline)
    named = {sha: match.groupdict() for name, sha in shas.items() if (match := NAME.fullmatch(name))}
    rows = [{**{key: float(value) for key, value in set_to.items()}, **found_by(sha)} for sha, set_to in named.items()]
    if not rows:
        raise SystemExit("no experiment is named bias<b>-seed<s>: run make sweep first")
    return pd.DataFrame(rows).astype({"seed": int})


def merged(recorded: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Join the runs recorded earlier and the runs found now.

    recorded, found: tables with a row per run: bias, seed, and a column per result.
    Returns one table sorted by bias and seed. A run found now replaces a recorded run with the same bias and seed.
    """
    both = pd.concat([recorded, found], ignore_index=True).drop_duplicates(["bias", "seed"], keep="last")
    return both.sort_values(["bias", "seed"], ignore_index=True)


def found_by(sha: str) -> dict[str, float]:
    """Read the results of one run from its metrics and parameters, as DVC keeps them.

    sha: the git commit of the experiment.
    Returns the numbers of one row of sweep.csv by column. R is the log-probability of the true emotion. A gap is
    clothed minus semi-nude.
        demo_*                      accuracy of the demo CLIP on new women, and number of its trainings
        accuracy_*                  emotion accuracy, 0 to 1, by model and edit; semi-nude unless the name says clothed
        R_gap*                      gap in R, nats, without and with the edit
        *_reliance_R*               change of R on semi-nude images when bust or face is greyed out, nats
        lift_gap_*                  gap in energy lift on the bust, by heatmap method
        deletion_gap_*              gap, nats, of the mean change of R while the patches of the bust are greyed out in
                                    the heatmap's order, by heatmap method
        iou_gap_grad_eclip          gap in IoU of the Grad-ECLIP map with the bust
        best_random_set             largest gain in semi-nude accuracy by editing a random set of latents
        p_random_sets               p-value of the edit against the random sets; both are NaN if nothing is
                                    edited, or if no random sets are like the edited set
        layer, expansion            the chosen SAE
        n_*                         numbers of SAEs, of latents found and of latents edited
        encode_colour               share of the edited latents that encode the top's colour
        planted_*_rank              best and worst rank of the latents that detect the colours. Rank 1 is the latent
                                    that harms semi-nude women most
    """

    def metrics(stage: str) -> Any:
        return json.loads(dvc.api.read(f"metrics/{stage}.json", rev=sha))

    select, ablate, describe = (metrics(stage) for stage in ("select_sae", "full/ablate", "describe_latents"))
    maps = metrics("full/check_heatmaps")["maps"]
    grid = params.parse(dvc.api.read("params.yaml", rev=sha), PARAMS_FPATH)["grid"]
    saes = [f"l{layer}_x{expansion}" for layer in grid["layers"] for expansion in grid["expansions"]]
    bias_latents = [metrics(f"analyse_sae/{sae}")["bias_latents"] for sae in saes]
    accuracy, edit = ablate["accuracy"], ablate["edit"]["accuracy"]
    training = metrics("prepare_clip")["training"]
    return {
        "demo_accuracy": training["accuracy"],
        "demo_attempts": training["attempts"],
        "accuracy_clothed": accuracy["original"][CLOTHED]["estimate"],
        "accuracy_semi_nude": accuracy["original"][SEMI_NUDE]["estimate"],
        "accuracy_bust_greyed": accuracy["bust_greyed"][SEMI_NUDE]["estimate"],
        "accuracy_edited": accuracy["edited"][SEMI_NUDE]["estimate"],
        "accuracy_ranked_once": accuracy["ranked_once"][SEMI_NUDE]["estimate"],
        "accuracy_difference_in_means": accuracy["difference_in_means"][SEMI_NUDE]["estimate"],
        "accuracy_colour_subspace": accuracy["colour_subspace"][SEMI_NUDE]["estimate"],
        "accuracy_clothed_colour_subspace": accuracy["colour_subspace"][CLOTHED]["estimate"],
        "accuracy_colour_subspace_within_cost": accuracy["colour_subspace_within_cost"][SEMI_NUDE]["estimate"],
        "accuracy_clothed_colour_subspace_within_cost": accuracy["colour_subspace_within_cost"][CLOTHED]["estimate"],
        "accuracy_clothed_edited": accuracy["edited"][CLOTHED]["estimate"],
        "R_gap": ablate["R"]["original"]["gap"]["estimate"],
        "R_gap_edited": ablate["R"]["edited"]["gap"]["estimate"],
        "bust_reliance_R": ablate["reliance"]["original"]["bust"]["R"][SEMI_NUDE]["estimate"],
        "bust_reliance_R_edited": ablate["reliance"]["edited"]["bust"]["R"][SEMI_NUDE]["estimate"],
        "face_reliance_R": ablate["reliance"]["original"]["face"]["R"][SEMI_NUDE]["estimate"],
        **{f"lift_gap_{name}": found["bust_energy_lift"]["gap"]["estimate"] for name, found in maps.items()},
        **{f"deletion_gap_{name}": found["bust_deletion"]["gap"]["estimate"] for name, found in maps.items()},
        "iou_gap_grad_eclip": maps["grad_eclip"]["bust_matched_area_iou"]["gap"]["estimate"],
        "best_random_set": edit.get("best_random_set", math.nan),
        "p_random_sets": edit.get("p_random_sets", math.nan),
        "layer": select["layer"],
        "expansion": select["expansion"],
        "n_saes": len(saes),
        "n_saes_with_bias": sum(found > 0 for found in bias_latents),
        "n_bias": select["n_bias"],
        "n_perception": select["n_perception"],
        "n_edited": select["n_latents"],
        "encode_colour": describe["edited_latents"].get("encode_colour", math.nan),
        "planted_best_rank": describe["planted_feature"]["best_rank"],
        "planted_worst_rank": describe["planted_feature"]["worst_rank"],
    }


def share(hits: int, n: int) -> tuple[float, float, float]:
    """Return the share hits / n, and the lower and upper end of its Clopper-Pearson interval.

    hits: number of runs that count. n: number of all runs. The level of the interval is CONFIDENCE (0.95).
    """
    found = stats.binomtest(hits, n).proportion_ci(CONFIDENCE, method="exact")
    return hits / n, found.low, found.high


def table(runs: pd.DataFrame) -> str:
    """Write the results of the runs as a Markdown table with a row per bias.

    runs: a row per run. Columns: bias, n_bias and n_perception (numbers of latents named), n_saes, n_saes_with_bias
        (SAEs with a bias latent), encode_colour (share of the edited latents that encode the colour), and
        accuracy_<which> for each of SHOWN_ACCURACIES.
    A row shows the share of runs that name a bias latent, with its Clopper-Pearson interval. The number of SAEs that
    name a bias latent is summed over runs. Other counts, shares and accuracies are medians over runs, with their range.
    """

    def spread(values: pd.Series, pattern: str = "{:.2f}") -> str:
        several = f"{pattern} ({pattern} to {pattern})" if len(values) > 1 else pattern
        return several.format(values.median(), values.min(), values.max())

    columns = ("bias", "runs", "that name a bias latent", "SAEs that do", "bias latents of the chosen one",
               "perception latents", "share edited that encode the colour",
               "semi-nude accuracy", "edited", "clothed, edited", "colour subspace removed at like cost")  # fmt: skip
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for bias, part in runs.groupby("bias"):
        positive = part[part["n_bias"] > 0]
        rate, low, high = share(len(positive), len(part))
        cells = (
            f"{bias:g}", str(len(part)), f"{rate:.0%} [{low:.0%}, {high:.0%}]",
            f"{part['n_saes_with_bias'].sum():.0f} of {part['n_saes'].sum():.0f}",
            spread(part["n_bias"], "{:.0f}"), spread(part["n_perception"], "{:.0f}"),
            spread(positive["encode_colour"], "{:.0%}") if len(positive) else "none",
            *(spread(part[f"accuracy_{which}"]) for which in SHOWN_ACCURACIES),
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


MAPS = {
    "grad_eclip": "Grad-ECLIP",
    "grad_eclip_contrastive": "Grad-ECLIP, contrastive",
    "attribution": "attribution",
    "attribution_contrastive": "attribution, contrastive",
    "legrad": "LeGrad",
    "attention": "attention",
    "random": "random map",
}
ENDPOINTS = {
    "R_gap": "emotion gap in R",
    "bust_reliance_R": "R gained by greying the bust",
    "face_reliance_R": "change of R by greying the face",
    **{f"lift_gap_{name}": f"bust-lift gap, {label}" for name, label in MAPS.items()},
    "iou_gap_grad_eclip": "bust-IoU gap, Grad-ECLIP",
    **{f"deletion_gap_{name}": f"gap in R, bust deleted, {label}" for name, label in MAPS.items()},
}


def tracking(runs: pd.DataFrame) -> pd.DataFrame:
    """Measure how well each endpoint (a result that may show the bias) follows the planted bias from run to run.

    runs: a row per run, with bias and a column per endpoint (the keys of ENDPOINTS), such as R_gap: the gap, clothed
        minus semi-nude, in the log-probability of the true emotion.
    Returns a row per endpoint:
        endpoint     label of the endpoint
        rho          Spearman's correlation of the endpoint with the bias, over runs
        low, high    bootstrap interval of rho over runs
    """
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(runs), (N_BOOTSTRAP, len(runs)))
    bias, rows = runs["bias"].to_numpy(), []
    for name, label in ENDPOINTS.items():
        endpoint = runs[name].to_numpy()
        redrawn = spearman(bias[draws], endpoint[draws])
        low, high = np.nanquantile(redrawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        rows.append((label, float(spearman(bias[None], endpoint[None])[0]), low, high))
    return pd.DataFrame(rows, columns=["endpoint", "rho", "low", "high"])


def tracking_table(runs: pd.DataFrame) -> str:
    """Write how well each endpoint (a result that may show the bias) follows the planted bias, as a Markdown table.

    runs: a row per run, with bias and a column per endpoint (the keys of ENDPOINTS), such as R_gap: the gap, clothed
        minus semi-nude, in the log-probability of the true emotion.
    A row shows the label of an endpoint, its Spearman correlation with the bias over runs, and the bootstrap interval
    of this correlation.
    """
    lines = ["| endpoint | rank correlation with the planted bias |", "|---|---|"]
    lines += [f"| {r.endpoint} | {r.rho:.2f} [{r.low:.2f}, {r.high:.2f}] |" for r in tracking(runs).itertuples()]
    return "\n".join(lines)


def draw(runs: pd.DataFrame, fpath: Path) -> None:
    """Draw the results against the planted bias, and write the picture to `fpath`.

    runs: a row per run, with bias, n_bias (number of bias latents named), accuracy_clothed_edited, accuracy_edited,
        accuracy_bust_greyed, accuracy_semi_nude, and a column per endpoint (the keys of ENDPOINTS).
    The first panel shows the share of runs that name a bias latent, with its interval. The second shows accuracies
    before and after the edit: a mark per run, and a line through the medians. The third shows the rank correlation of
    each endpoint with the bias, with its interval.
    """
    figure, axes = figures.panels(3, f"{len(runs)} runs, each with its own women, CLIP and SAEs", cell=(4.4, 3.8))
    rate, accuracy, endpoints = axes[0]
    for bias, part in runs.groupby("bias"):
        estimate, low, high = share(int((part["n_bias"] > 0).sum()), len(part))
        rate.plot([bias, bias], [low, high], color=figures.VERMILION, lw=2.4)
        rate.plot(bias, estimate, "o", color=figures.VERMILION, ms=7)
    rate.set(ylabel="share of runs", title="A bias latent is named", ylim=(-0.03, 1.03))
    lines = (
        ("accuracy_clothed_edited", "clothed, edited", figures.BLUE, "s", 0.02),
        ("accuracy_edited", "semi-nude, edited", figures.GREEN, "o", 0.01),
        ("accuracy_bust_greyed", "semi-nude, bust greyed out", figures.GREY, "^", -0.01),
        ("accuracy_semi_nude", "semi-nude", figures.VERMILION, "o", 0.0),
    )
    for column, label, colour, marker, shift in lines:
        accuracy.plot(runs["bias"] + shift, runs[column], marker, mfc="none", color=colour, ms=5)
        median = runs.groupby("bias")[column].median()
        accuracy.plot(median.index + shift, median, "-", color=colour, label=label, lw=1.5)
    accuracy.set(ylabel="emotion accuracy", title="Accuracy before and after the edit", ylim=(0, 1.03))
    accuracy.legend(fontsize=8, loc="lower left")
    found = tracking(runs)
    rows = [{"estimate": r.rho, "low": r.low, "high": r.high} for r in found.itertuples()]
    figures.interval_bars(endpoints, list(found["endpoint"]), rows, [figures.BLUE] * len(rows))
    endpoints.axvline(0, color="black", lw=0.7)
    endpoints.set(
        xlim=(-1.05, 1.05), xlabel="rank correlation with the planted bias", title="Which endpoint tracks the truth"
    )
    for ax in (rate, accuracy):
        ax.set_xlabel("planted bias")
        ax.set_xticks(sorted(runs["bias"].unique()))
    figures.save(figure, fpath)


def main() -> None:
    runs = merged(pd.read_csv(RUNS_FPATH), collect())
    with outs.atomic_output(RUNS_FPATH) as unfinished:
        runs.to_csv(unfinished, index=False, float_format="%.6g")
    draw(runs, PLOT_FPATH)
    print(table(runs), tracking_table(runs), sep="\n\n")


if __name__ == "__main__":
    main()

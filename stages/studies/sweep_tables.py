"""Tables and picture of the sweep: what the pipeline says about planted worlds, beside the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from stages.core import figures
from stages.core.checks.rank_correlation import spearman
from stages.core.run.labels import CLOTHED, SEMI_NUDE
from stages.studies.worlds import WORLDS

CONFIDENCE = 0.95
N_BOOTSTRAP = 2000
NO_GAP = "No emotion gap was found"
LOSES = {SEMI_NUDE: "of the same women semi-nude", CLOTHED: "of the same women in a shirt"}
SHOWN = ("semi_nude", "semi_nude_edited", "clothed", "clothed_edited")
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
    "bust_reliance": "R gained by greying the bust",
    "face_reliance": "change of R by greying the face",
    **{f"lift_gap_{name}": f"bust-lift gap, {label}" for name, label in MAPS.items()},
    "iou_gap_grad_eclip": "bust-IoU gap, Grad-ECLIP",
    **{f"deletion_gap_{name}": f"gap in R, bust deleted, {label}" for name, label in MAPS.items()},
}


def share(hits: int, n: int) -> tuple[float, float, float]:
    """Return the share hits / n, and the lower and upper end of its Clopper-Pearson interval.

    hits: number of runs that count. n: number of all runs. The level of the interval is CONFIDENCE (0.95).
    """
    found = stats.binomtest(hits, n).proportion_ci(CONFIDENCE, method="exact")
    return hits / n, found.low, found.high


def first_sentence_is_right(finding: str, loses: str) -> bool:
    """Whether the first sentence of the report says the truth about which condition CLIP reads worse.

    finding: the first sentences of the report. loses: the condition that the planted bias harms (`World.loses`).
    """
    no_gap = finding.startswith(NO_GAP)
    if loses in LOSES:
        return not no_gap and LOSES[loses] in finding
    return no_gap or (loses == "slight" and LOSES[SEMI_NUDE] in finding)


def judged(runs: pd.DataFrame) -> pd.DataFrame:
    """Compare what each run says with what is planted.

    runs: a row per run: world, losing, n_saes_named, n_edited, gain_high and finding (`sweep.results`).
    Returns the table with more columns:
        named          whether a bias latent is named in any SAE
        right_side     whether one is named, and the planted bias harms the condition that is said to lose
        right          whether the first sentence of the report is right
        harmful        whether latents are edited, though the edit lowers accuracy in the losing condition
    """
    loses = runs["world"].map(lambda name: WORLDS[name].loses)
    named = runs["n_saes_named"] > 0
    truly = loses.replace("slight", SEMI_NUDE)
    right = [first_sentence_is_right(text, truth) for text, truth in zip(runs["finding"], loses, strict=True)]
    return runs.assign(
        named=named,
        right_side=named & (runs["losing"] == truly),
        right=right,
        harmful=(runs["n_edited"] > 0) & (runs["gain_high"] < 0),
    )


def table(runs: pd.DataFrame) -> str:
    """Write what the pipeline says about each world, as a Markdown table with a row per world.

    runs: a row per run, as `sweep.results` describes it.
    Shares have Clopper-Pearson intervals. Other figures are medians over runs, with their range.
    """
    columns = ("planted", "runs", "a bias latent is named", "against the right side", "first sentence right",
               "latents edited", "semi-nude accuracy", "edited", "clothed", "edited")  # fmt: skip
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    runs = judged(runs)
    for name, part in runs.groupby("world", sort=False):
        rate, low, high = share(int(part["named"].sum()), len(part))
        cells = (
            WORLDS[str(name)].title, str(len(part)), f"{rate:.0%} [{low:.0%}, {high:.0%}]",
            f"{part['right_side'].sum()} of {part['named'].sum()}", f"{part['right'].sum()} of {len(part)}",
            _spread(part["n_edited"], "{:.0f}"), *(_spread(part[column]) for column in SHOWN),
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: pd.Series, pattern: str = "{:.2f}") -> str:
    values = values.dropna()
    if values.empty:
        return "no edit"
    several = f"{pattern} ({pattern} to {pattern})" if len(values) > 1 else pattern
    return several.format(values.median(), values.min(), values.max())


def rates(runs: pd.DataFrame) -> str:
    """Write the error rates over worlds as a Markdown table: false names, wrong sides, edits that hurt.

    runs: a row per run, as `sweep.results` describes it.
    """
    runs = judged(runs)
    loses = runs["world"].map(lambda name: WORLDS[name].loses)
    null, biased = runs[loses == "none"], runs[loses.isin(list(LOSES))]
    lines = ["| error | runs | share |", "|---|---|---|"]
    for what, hits in (
        ("a bias latent is named where nothing is planted against one condition", null["named"]),
        ("a bias latent is named against the wrong side", biased["named"] & ~biased["right_side"]),
        ("an edit is made that lowers accuracy where it should help", runs["harmful"]),
        ("the first sentence is wrong", ~runs["right"]),
    ):
        rate, low, high = share(int(hits.sum()), len(hits))
        lines.append(f"| {what} | {hits.sum()} of {len(hits)} | {rate:.1%} [{low:.1%}, {high:.1%}] |")
    return "\n".join(lines)


def tracking(runs: pd.DataFrame) -> pd.DataFrame:
    """Measure how well each endpoint (a result that may show the bias) follows the planted bias from run to run.

    runs: a row per run, with world and a column per endpoint (the keys of ENDPOINTS), such as R_gap: the gap, clothed
        minus semi-nude, in the log-probability of the true emotion. Only runs with heatmaps count.
    Returns a row per endpoint:
        endpoint     label of the endpoint
        rho          Spearman's correlation of the endpoint with the bias, over runs
        low, high    bootstrap interval of rho over runs
    """
    runs = runs[runs["iou_gap_grad_eclip"].notna()]
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(runs), (N_BOOTSTRAP, len(runs)))
    bias, rows = planted_bias(runs).to_numpy(), []
    for name, label in ENDPOINTS.items():
        endpoint = runs[name].to_numpy()
        redrawn = spearman(bias[draws], endpoint[draws])
        low, high = np.nanquantile(redrawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        rows.append((label, float(spearman(bias[None], endpoint[None])[0]), low, high))
    return pd.DataFrame(rows, columns=["endpoint", "rho", "low", "high"])


def planted_bias(runs: pd.DataFrame) -> pd.Series:
    """Return the planted bias of each run, 0 to 1. runs: a row per run, with world."""
    return runs["world"].map(lambda name: float(WORLDS[name].values["demo.bias"]))


def tracking_table(runs: pd.DataFrame) -> str:
    """Write how well each endpoint (a result that may show the bias) follows the planted bias, as a Markdown table.

    runs: a row per run, with world and a column per endpoint (the keys of ENDPOINTS), such as R_gap: the gap, clothed
        minus semi-nude, in the log-probability of the true emotion.
    A row shows the label of an endpoint, its Spearman correlation with the bias over runs, and the bootstrap interval
    of this correlation.
    """
    lines = ["| endpoint | rank correlation with the planted bias |", "|---|---|"]
    lines += [f"| {r.endpoint} | {r.rho:.2f} [{r.low:.2f}, {r.high:.2f}] |" for r in tracking(runs).itertuples()]
    return "\n".join(lines)


def draw(runs: pd.DataFrame, fpath: Path) -> None:
    """Draw what is named and what the edit does in each world, and which endpoint follows the bias, into `fpath`.

    runs: a row per run, as `sweep.results` describes it.
    The first panel shows the share of runs that name a bias latent, with its interval. The second shows accuracy in the
    condition that loses, before and after the edit: a mark per run. The third shows the rank correlation of each
    endpoint with the bias, with its interval.
    """
    figure, axes = figures.panels(3, f"{len(runs)} runs, each with its own women, CLIP and SAEs", cell=(4.8, 5.2))
    rate, accuracy, endpoints = axes[0]
    runs = judged(runs)
    names = [name for name in WORLDS if name in set(runs["world"])]
    rows = []
    for name in names:
        part = runs[runs["world"] == name]
        rows.append(dict(zip(("estimate", "low", "high"), share(int(part["named"].sum()), len(part)), strict=True)))
    none = [WORLDS[name].loses == "none" for name in names]
    titles = [WORLDS[name].title for name in names]
    figures.interval_bars(rate, titles, rows, [figures.GREY if null else figures.VERMILION for null in none])
    rate.set(xlim=(0, 1.03), xlabel="share of runs", title="A bias latent is named")
    for y, name in enumerate(names):
        part = runs[runs["world"] == name]
        loses = CLOTHED if WORLDS[name].loses == CLOTHED else SEMI_NUDE
        for column, colour, marker, label in (
            (loses, figures.VERMILION, "o", "not edited"),
            (f"{loses}_edited", figures.GREEN, "s", "edited"),
        ):
            style = {"mfc": "none", "color": colour, "ms": 5, "label": label if y == 0 else None}
            accuracy.plot(part[column], [y] * len(part), marker, **style)
    accuracy.set(xlim=(0, 1.03), xlabel="emotion accuracy", title="Accuracy in the condition that loses")
    accuracy.set_yticks(range(len(names)), [""] * len(names))
    accuracy.set_ylim(rate.get_ylim())
    accuracy.legend(fontsize=8, loc="lower left")
    found = tracking(runs)
    bars = [{"estimate": r.rho, "low": r.low, "high": r.high} for r in found.itertuples()]
    figures.interval_bars(endpoints, list(found["endpoint"]), bars, [figures.BLUE] * len(bars))
    endpoints.axvline(0, color="black", lw=0.7)
    endpoints.set(
        xlim=(-1.05, 1.05), xlabel="rank correlation with the planted bias", title="Which endpoint tracks the truth"
    )
    figures.save(figure, fpath)

"""The numbers of a finished run -> some fifteen lines: the finding, how sure it is, its cost, and the calibration.

    python -m stages.studies.summary

reads    metrics/full/ablate.json, metrics/select_sae.json, metrics/extract.json, params.yaml
writes   nothing; it prints. No other output of the study is needed, so it works in a clone before anything has run
claims   nothing of its own: all women are confirmation women (held out from choosing), as in `ablate`
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages.core.report.wording import SEARCHES, WOMEN, fixed, number, percent, point_word, points
from stages.core.run import outs, params
from stages.core.run.errors import run_command
from stages.core.run.labels import CLOTHED, OTHER_CONDITION, SEMI_NUDE
from stages.core.schema import Inference

ABLATE_FPATH, SELECT_FPATH = Path("metrics/full/ablate.json"), Path("metrics/select_sae.json")
EXTRACT_FPATH = Path("metrics/extract.json")
ARMS = {"original": "original CLIP", "bust_greyed": "bust greyed out", "edited": "edited CLIP"}
Lines = dict[str, list[str]]
"""Lines of text by heading."""


def summary(ablate: dict[str, Any], select: dict[str, Any], chance: float, min_readout: float) -> Lines:
    """Collect the lines of the summary.

    ablate: the content of metrics/full/ablate.json. select: that of metrics/select_sae.json.
    chance: accuracy of a guess, 0 to 1.
    min_readout: skill below which a model reads no faces, on a scale from 0 (chance) to 1 (all correct).
    """
    skill = ablate["guardrails"]["readout_skill"]
    if skill < min_readout:
        return {"Finding": [f"this CLIP does not read faces (skill {skill:.2f}), so nothing is claimed"]}
    if not select["n_latents"]:
        found = finding(ablate, chance, ["original", "bust_greyed"])
        return {"Finding": [*found, "edit: none; no latent was named, or no edit helped"]}
    edit = f"edit: {select['n_latents']:.0f} of {select['d_sae']:,} latents after block {select['layer']}"
    losing = SEMI_NUDE if select["R_gap"] > 0 else CLOTHED  # on the women used for choosing, as in the search
    return {
        "Finding": [*finding(ablate, chance, list(ARMS)), edit],
        "How sure": certainty(ablate, losing),
        "Cost": cost(ablate, OTHER_CONDITION[losing]),
        "Calibration": calibration(ablate),
    }


def finding(ablate: dict[str, Any], chance: float, arms: list[str]) -> list[str]:
    """Write the emotion accuracy of some arms (interventions), with intervals over women.

    ablate: the content of metrics/full/ablate.json. chance: accuracy of a guess. arms: names of the arms.
    """
    accuracy = ablate["accuracy"]
    return [
        f"share of emotions named correctly, women held out; chance is {100 * chance:.0f} %",
        *(
            f"{ARMS[arm]}: {percent(accuracy[arm][SEMI_NUDE])} semi-nude, "
            f"{percent(accuracy[arm][CLOTHED])} in a shirt, gap {points(accuracy[arm]['gap'])}"
            for arm in arms
        ),
    ]


def certainty(ablate: dict[str, Any], losing: str) -> list[str]:
    """Write what the edit gains, and its p-values against random sets and against searches on meaningless labels.

    ablate: the content of metrics/full/ablate.json. losing: the condition that CLIP reads worse.
    """
    accuracy, R = ablate["edit"]["accuracy"], ablate["edit"]["R"]
    tried = {kind: found for kind, found in ablate["null_searches"].items() if "p_accuracy" in found}
    sets = [accuracy["p_random_sets"]] if "p_random_sets" in accuracy else []
    return [
        f"accuracy of {WOMEN[losing]} rises by {points(accuracy['gain'])}",
        f"log-probability of their true emotion rises by {number(R['gain'])} nats",
        *(f"p = {p:.3f} against random sets of latents as strong as the edit" for p in sets),
        *(
            f"p = {found['p_accuracy']:.3f} against {found['n']:.0f} searches {SEARCHES[kind]}"
            for kind, found in tried.items()
        ),
    ]


def cost(ablate: dict[str, Any], other: str) -> list[str]:
    """Write what the edit costs women in the other condition, and how far it moves the embeddings.

    ablate: the content of metrics/full/ablate.json. other: the condition that CLIP reads better.
    """
    edit, kept = ablate["edit"], ablate["guardrails"]
    return [
        f"{WOMEN[other]} lose {points(edit['accuracy']['cost'])} of accuracy and {number(edit['R']['cost'])} nats",
        f"cosine of embeddings to the original: {kept['cosine_to_original_semi_nude']:.2f} semi-nude, "
        f"{kept['cosine_to_original_clothed']:.2f} in a shirt",
    ]


def calibration(ablate: dict[str, Any]) -> list[str]:
    """Write what the instrument gives where there is nothing to find.

    ablate: the content of metrics/full/ablate.json.
    """
    unedited = f"{ablate['guardrails']['error_kept_largest_R_change']:.1g}"
    found = [f"the SAE with no latent edited changes R by at most {unedited} nats"]
    if null := ablate["null_searches"].get("labels_swapped"):
        median, largest = (fixed(100 * null[f"{which}_accuracy_gain"], 0) for which in ("median", "largest"))
        gains = f"{median} {point_word(median)} at the median, {largest} at most"
        found.insert(0, f"a search on swapped labels gains {gains}")
    return found


def layout(lines: Lines) -> str:
    """Write the lines in two columns: the heading beside its first line, then the lines."""
    width = max(map(len, lines)) + 2
    return "\n".join(
        f"{'' if i else heading:{width}}{line}"
        for heading, of_heading in lines.items()
        for i, line in enumerate(of_heading)
    )


def main() -> None:
    params.command_line(__doc__).parse_args()
    inference = params.load(Inference)
    ablate, select = outs.read_metrics(ABLATE_FPATH, "ablate"), outs.read_metrics(SELECT_FPATH, "select_sae")
    chance = outs.read_metrics(EXTRACT_FPATH, "extract")["accuracy"]["chance"]
    print(layout(summary(ablate, select, chance, inference.min_readout)))


if __name__ == "__main__":
    run_command(main)

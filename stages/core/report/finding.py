"""The head of the report: the main finding in sentences, what was planted and seen in training, and four numbers.

`metrics` is a dictionary of the files in metrics/, by stage. An estimate is a dictionary of estimate, low, high. R is
the log-probability of the true emotion, in nats.
"""

from __future__ import annotations

from typing import Any

from stages.core.report.wording import WOMEN, fixed, in_percent, number, percent, point_word, points
from stages.core.run.labels import CLOTHED, OTHER_CONDITION, SEMI_NUDE
from stages.core.schema import Clip, Demo, Inference, Ingest, TrainSae


def finding(metrics: dict[str, Any], chosen: dict[str, Any], inference: Inference, n_tried: int) -> str:
    """Write the main finding: the emotion gap, and what the edit of the chosen latents gains and costs.

    The emotion gap is accuracy on clothed minus accuracy on semi-nude images. If nothing was edited, the text gives the
    reason. If the model does not read faces, the text claims nothing.

    metrics: the contents of the metrics files, by stage; `ablate`, `select_sae` and `extract` are read.
    chosen: content of data/selection/selection.json; `latents` (the edited ones), `layer`, `losing` (the condition read
        worse) and `gap` (in R, on the women used for choosing) are used.
    inference: settings of the tests. A model reads faces if its accuracy in the condition read better is at least
        min_readout, on a scale from 0 (chance) to 1 (all correct).
    n_tried: number of SAEs in which edits were tried.
    """
    accuracy = metrics["ablate"]["accuracy"]["original"]
    if metrics["ablate"]["guardrails"]["readout_skill"] < inference.min_readout:
        chance = in_percent(metrics["extract"]["accuracy"]["chance"])
        return (
            "This CLIP does not read faces: it names the emotion correctly on "
            f"{percent(accuracy[CLOTHED])} of the images of women in a shirt and on {percent(accuracy[SEMI_NUDE])} of "
            f"those of the same women semi-nude, where chance is {chance}. "
            "It has no emotion readout that could be biased, so this report claims nothing."
        )
    edit = edit_done(metrics, chosen) if chosen["latents"] else no_edit(metrics, chosen, inference, n_tried)
    return f"{emotion_gap(accuracy)}. {edit}"


def emotion_gap(accuracy: dict[str, dict[str, float]]) -> str:
    """Write which condition CLIP reads worse, without an edit. The text has no full stop.

    accuracy: emotion accuracy on women held out, with intervals: semi_nude, clothed and gap (clothed minus semi-nude).
    """
    gap = accuracy["gap"]
    if gap["low"] <= 0 <= gap["high"]:
        return f"No emotion gap was found: clothed minus semi-nude accuracy is {points(gap)}"
    better, worse = (CLOTHED, SEMI_NUDE) if gap["low"] > 0 else (SEMI_NUDE, CLOTHED)
    where = {SEMI_NUDE: "semi-nude", CLOTHED: "in a shirt"}
    return (
        f"This CLIP names the emotion correctly on {percent(accuracy[better])} of the images of women "
        f"{where[better]}, but on {percent(accuracy[worse])} of the images of the same women {where[worse]}"
    )


def edit_done(metrics: dict[str, Any], chosen: dict[str, Any]) -> str:
    """Write what the edit gains and costs in accuracy, and how often a search on labels without meaning gains as much.

    metrics: the contents of the metrics files, by stage; `ablate` and `select_sae` are read.
    chosen: content of data/selection/selection.json; `latents`, `layer` and `losing` are used.
    """
    edit, d_sae = metrics["ablate"]["edit"]["accuracy"], metrics["select_sae"]["d_sae"]
    null = metrics["ablate"]["null_searches"].get("labels_swapped")
    beside = ""
    if null:
        beside = (
            f" (p = {null['p_accuracy']:.3f} against {null['n']:.0f} such searches on swapped labels, the smallest "
            f"possible being {1 / (1 + null['n']):.3f})"
        )
    elif "p_random_sets" in edit:
        beside = f" (p = {edit['p_random_sets']:.3f} against matched random sets of latents)"
    losing, other = chosen["losing"], OTHER_CONDITION[chosen["losing"]]
    return (
        f"Editing {len(chosen['latents'])} of {d_sae:,} latents after block {chosen['layer']} raises accuracy on "
        f"{WOMEN[losing]} by {points(edit['gain'])}{beside} and lowers it on {WOMEN[other]} by "
        f"{points(edit['cost'])}."
    )


def no_edit(metrics: dict[str, Any], chosen: dict[str, Any], inference: Inference, n_tried: int) -> str:
    """Write why nothing was edited.

    metrics: the contents of the metrics files, by stage; `select_sae` is read.
    chosen: content of data/selection/selection.json; `layer`, `list`, `losing` and `gap` are used.
    inference: settings of the tests.
    n_tried: number of SAEs in which edits were tried.
    """
    found = metrics["select_sae"]
    gap, d_sae = number(chosen["gap"]), found["d_sae"]
    if chosen["losing"] == "none":
        return (
            "No latent was named and none was edited: on the women used for choosing, the log-probability of the true "
            f"emotion differs between the conditions by {gap} nats, which is not shown to be more than "
            f"{inference.min_gap:g}."
        )
    named = "perception" if chosen["list"] == "perception" else "bias"
    if not n_tried:
        return (
            f"No {named} latents were found: after block {chosen['layer']}, none of {d_sae:,} latents is "
            f"shown to differ (family-wise error rate {inference.alpha:g}). {found['n_perception']:.0f} are more "
            "active on semi-nude women. No edit was tried."
        )
    return (
        f"Edits were tried in {n_tried} {'SAE' if n_tried == 1 else 'SAEs'} on the women used for choosing, but none "
        f"helped: none raised the readout of {WOMEN[chosen['losing']]} by more than it changed the other condition, "
        "without lowering accuracy. So nothing was edited."
    )


def seen_in_training(training: TrainSae) -> str:
    """Write which images of confirmation women the SAEs may have been trained on; latents are chosen on others.

    training: the section `train_sae` of params.yaml.
    Returns "" if the SAEs were trained here, without the images of confirmation women.
    """
    if training.source == "pretrained":
        return (
            "The SAEs were trained elsewhere (train_sae.source: pretrained). Whether they were trained on images of "
            "these women is not known here."
        )
    if training.train_on != "audit":
        return ""
    return (
        "The SAEs, however, were trained on the images of all women, these women included (train_sae.train_on: audit). "
        "The training saw no labels, but on these women the SAE reconstructs better, and its latents fit better, than "
        "on women it has never seen. So the numbers say less about other women than they would with an SAE trained on "
        "discovery women only."
    )


def truth(ingest: Ingest, clip: Clip, demo: Demo) -> str:
    """Write which bias was planted into the captions that the demo CLIP was trained on.

    ingest, clip, demo: sections of params.yaml.
    Returns "" if the images were not drawn by the program, or if the audited model is not the demo CLIP.
    """
    if ingest.source != "synthetic" or clip.source != "demo":
        return ""
    errs = {"cue": "follows the colour of her garment and not her face", "lost": "is drawn at random"}[demo.plant]
    women = {SEMI_NUDE: "a semi-nude woman", CLOTHED: "a woman in a shirt", "both": "any woman"}[demo.biased]
    return (
        "The women are drawn by a program and the bias is planted. In the captions that this CLIP was trained on, with "
        f"probability {demo.bias:g} the emotion of {women} {errs}. So the findings can be compared with the truth."
    )


def cards(metrics: dict[str, Any], chosen: dict[str, Any]) -> list[dict[str, str]]:
    """Collect the numbers at the top of the page.

    A gap is the value on clothed images minus the value on semi-nude images. Energy lift is the share of a heatmap's
    mass in a region, divided by the region's share of the picture.

    metrics: the contents of the metrics files, by stage; `ablate` and `heatmap` are read.
    chosen: content of data/selection/selection.json; `latents` and `losing` (the condition read worse) are used.
    Returns dictionaries with the keys value, label and interval. Each key holds text. The numbers are:
        the gap in emotion accuracy
        the change of accuracy on semi-nude images when the bust is greyed out
        the gain of accuracy in the condition read worse when the chosen latents are edited, if any are
        the gap in the heatmaps' energy lift on the bust, without the edit
    """
    ablate, heat = metrics["ablate"], metrics["heatmap"]["original"]["bust_energy_lift"]
    greyed = ablate["reliance"]["original"]["bust"]["accuracy"][SEMI_NUDE]
    clothed, semi_nude = (f"{heat[condition]['estimate']:.2f}" for condition in (CLOTHED, SEMI_NUDE))

    def card(found: dict[str, float], label: str, in_points: bool = False) -> dict[str, str]:
        scale, digits = (100, 0) if in_points else (1, 2)
        value, low, high = (fixed(scale * found[key], digits, "+") for key in ("estimate", "low", "high"))
        unit = f" {point_word(value)}" if in_points else ""
        return {"value": f"{value}{unit}", "label": label, "interval": f"interval [{low}, {high}]"}

    shown = [
        card(ablate["accuracy"]["original"]["gap"], "emotion gap: accuracy clothed minus semi-nude", in_points=True),
        card(greyed, "change of semi-nude accuracy when the bust is greyed out", in_points=True),
        card(heat["gap"], f"bust-lift gap of the heatmaps: {clothed} clothed minus {semi_nude} semi-nude"),
    ]
    if chosen["latents"]:
        gain = ablate["edit"]["accuracy"]["gain"]
        shown.insert(2, card(gain, f"gain of accuracy on {WOMEN[chosen['losing']]} by the edit", in_points=True))
    return shown

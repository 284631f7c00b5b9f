"""The sentences of the report: each put together from the metrics, with interval and controls.

`metrics` is one dictionary of the files in metrics/, by stage; an estimate is a dictionary of estimate, low, high.
"""

from __future__ import annotations

from typing import Any

from stages.core.run.labels import CLOTHED, CONDITIONS, SEMI_NUDE
from stages.core.schema import Clip, Demo, Inference, Ingest

GAPS = {"bias": "effect on R, in nats, while those of earlier steps are edited", "perception": "activation"}
LABELS = {"colour": "the top's colour", "condition": "the garment", "emotion": "the face"}


def percent(found: dict[str, float]) -> str:
    """An accuracy with its interval."""
    return f"{100 * found['estimate']:.0f} % [{100 * found['low']:.0f}, {100 * found['high']:.0f}]"


def points(found: dict[str, float]) -> str:
    """A difference of accuracies with its interval, in percentage points."""
    return f"{100 * found['estimate']:.0f} points [{100 * found['low']:.0f}, {100 * found['high']:.0f}]"


def number(found: dict[str, float]) -> str:
    """An estimate with its interval."""
    return f"{found['estimate']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def finding(metrics: dict[str, Any], chosen: dict[str, Any], inference: Inference) -> str:
    """The first sentence of the report: gap, edit, controls, cost; or that there is nothing to edit."""
    accuracy, edit = metrics["ablate"]["accuracy"]["original"], metrics["ablate"]["edit"]["accuracy"]
    gap = accuracy["gap"]
    if gap["low"] > 0:
        says = (
            f"This CLIP names the emotion of {percent(accuracy[CLOTHED])} of women in a shirt, "
            f"but of {percent(accuracy[SEMI_NUDE])} of the same women semi-nude"
        )
    else:
        says = f"No emotion gap was found: clothed minus semi-nude accuracy is {points(gap)}"
    n, d_sae = len(chosen["latents"]), metrics["select_sae"]["d_sae"]
    if metrics["ablate"]["guardrails"]["readout_skill"] < inference.min_readout:
        return (
            f"This CLIP does not read faces: it names the emotion of {percent(accuracy[CLOTHED])} of women in a shirt, "
            f"where chance is {metrics['extract']['accuracy']['chance']:.0%}. "
            "Without a readout there is none to be biased, and nothing is claimed."
        )
    if not n and metrics["select_sae"]["n_bias"]:
        return (
            f"{says}. Bias latents were found ({metrics['select_sae']['n_bias']:.0f} of {d_sae:,} after block "
            f"{chosen['layer']}), but every edit of them costs clothed women more accuracy than params.yaml allows."
        )
    if not n:
        return (
            f"No bias latents found: of {d_sae:,} latents after block {chosen['layer']}, "
            f"{metrics['select_sae']['n_perception']:.0f} see that a woman is semi-nude, but no latent's effect on the "
            f"emotion differs by condition by more than {inference.min_effect:g} nats at a family-wise error of "
            f"{inference.alpha:g}. {says}."
        )
    return (
        f"{says}. Editing {n} of {d_sae:,} latents after block {chosen['layer']} changes "
        f"semi-nude accuracy by {points(edit['semi_nude_gain'])} (p = {edit['p_random_sets']:.3f} against random sets "
        f"of like latents) and costs clothed women {points(edit['clothed_loss'])}."
    )


def truth(ingest: Ingest, clip: Clip, demo: Demo) -> str:
    """What was planted, where that is known."""
    if ingest.source != "synthetic" or clip.source != "demo":
        return ""
    return (
        f"Women are drawn and the bias is planted: with probability {demo.bias:g}, the captions this CLIP "
        "learned from named, for a semi-nude woman, the emotion tied to the colour of her top, not that of her face. "
        "So the instrument can be held against the truth."
    )


def cards(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """The figures of the first screen."""
    ablate, heat = metrics["ablate"], metrics["heatmap"]["original"]["bust_energy_lift"]
    greyed = ablate["reliance"]["original"]["bust"]["accuracy"][SEMI_NUDE]
    edit, lifts = ablate["edit"]["accuracy"], [heat[condition]["estimate"] for condition in CONDITIONS]

    def card(found: dict[str, float], label: str, scale: float = 1, unit: str = "") -> dict[str, str]:
        digits = 0 if scale == 100 else 2
        value, low, high = (f"{scale * found[key]:+.{digits}f}" for key in ("estimate", "low", "high"))
        return {"value": f"{value}{unit}", "label": label, "interval": f"interval [{low}, {high}]"}

    return [
        card(ablate["accuracy"]["original"]["gap"], "emotion gap: accuracy clothed minus semi-nude", 100, " points"),
        card(greyed, "semi-nude accuracy when the bust is greyed out", 100, " points"),
        card(edit["semi_nude_gain"], "semi-nude accuracy after the edit", 100, " points"),
        card(heat["gap"], f"bust lift of heatmaps: {lifts[1]:.2f} clothed minus {lifts[0]:.2f} semi-nude"),
    ]  # fmt: skip


def described(metrics: dict[str, Any]) -> str:
    """What the edited latents encode, on women they were not chosen on, and where the planted feature ranks."""
    found = metrics["describe_latents"]
    shares = {label: found["edited_latents"].get(f"encode_{label}", 0) for label in LABELS}
    named = [f"{100 * share:.0f} % encode {LABELS[label]}" for label, share in shares.items() if share > 0]
    says = f"Of the edited latents, {', '.join(named)} more than anything else known. " if named else ""
    if "planted_feature" in found:
        planted = found["planted_feature"]
        says += (
            "Of all latents by harm, with nothing edited, the best detectors of the four colours rank "
            f"{planted['best_rank']} to {planted['worst_rank']}. "
        )
    return says


def causal(metrics: dict[str, Any], n_random_sets: int) -> str:
    """What the edit did to the readout and to the reliance on regions."""
    ablate = metrics["ablate"]
    edit, relied = ablate["edit"]["R"], ablate["reliance"]
    patches = ablate["guardrails"]["edited_patches_largest_R_change"]
    last = " After the last block only the class token reaches the embedding: to edit patches there changes nothing."
    recovered = (
        f"{100 * edit['share_of_gap_recovered']:.0f} % of the gap in R" if "share_of_gap_recovered" in edit else "R"
    )
    return (
        f"R is the log-probability of the true emotion, in nats. The edit gives semi-nude women "
        f"{number(edit['semi_nude_gain'])} nats ({recovered}) and costs clothed ones {number(edit['clothed_loss'])}; "
        f"the best of {n_random_sets} random sets of like latents gives {edit['best_random_set']:.2f}. "
        "Greying the bust out changes R of semi-nude women by "
        f"{number(relied['original']['bust']['R'][SEMI_NUDE])} before the edit and by "
        f"{number(relied['edited']['bust']['R'][SEMI_NUDE])} after it (p = "
        f"{ablate['edit']['bust_reliance']['p_random_sets']:.3f} against the random sets); greying the face, by "
        f"{number(relied['original']['face']['R'][SEMI_NUDE])} and "
        f"{number(relied['edited']['face']['R'][SEMI_NUDE])}."
        f"{last if patches == 0 and metrics['select_sae']['n_latents'] else ''}"
    )


def embeddings(metrics: dict[str, Any]) -> str:
    """What the edit did to the embedding beyond the readout."""
    before, after = (metrics["ablate"]["embeddings"][arm] for arm in ("original", "edited"))
    return (
        "Secondary: the association of images with the text of their emotion differs between the conditions by "
        f"{before['association_effect_size']:.2f} standard deviations before the edit and by "
        f"{after['association_effect_size']:.2f} after it. From the embedding a linear probe tells the condition of "
        f"{before['condition_decodable']:.0%} of images before the edit and of {after['condition_decodable']:.0%} "
        "after it: at 50 % the edit would have blinded the model to the garment."
    )


def heatmaps(metrics: dict[str, Any]) -> str:
    """What the heatmaps say, and whether they agree with the readout."""
    lift = {arm: metrics["heatmap"][arm]["bust_energy_lift"]["gap"] for arm in ("original", "edited")}
    readout = metrics["ablate"]["edit"]["R"]["semi_nude_gain"]
    recovered = readout["low"] > 0
    if recovered and lift["original"]["high"] >= 0:
        verdict = (
            "The readout recovers from a bias of which the original heatmap shows no gap: here it is no measure of it."
        )
    elif recovered and lift["edited"]["low"] <= lift["original"]["high"]:
        verdict = (
            "The readout recovers while the heatmap gap does not shrink: here the heatmap is no measure of the bias."
        )
    elif recovered:
        verdict = "Readout and heatmap move together."
    else:
        verdict = "The readout does not recover, whatever the heatmap does."
    return (
        "Energy lift is the share of the map's mass on a region over the region's share of the picture: 1 is chance. "
        f"The bust's lift gap, clothed minus semi-nude, is {number(lift['original'])} in the original model and "
        f"{number(lift['edited'])} in the edited one. {verdict}"
    )


def checks(metrics: dict[str, Any]) -> str:
    """Whether Grad-ECLIP's maps depend on parameters and text, and on the single head of the published code."""
    found = metrics["check_heatmaps"]
    parameters, head = found["parameters"], found["single_head"]
    return (
        "A map that explains the model must change with its parameters and with the text. Rank correlations of "
        f"Grad-ECLIP's maps with themselves: {parameters['agreement_projection_random']:.2f} once the projection is "
        f"random, {parameters['agreement_all_random']:.2f} once all parameters are; "
        f"{found['text']['agreement_with_another_emotion']:.2f} for the prompt of another emotion; "
        f"{head['agreement']:.2f} where the explained block runs with one head, as in the published code, "
        "which moves the cosine by "
        f"{head['mean_cosine_drift']:.3f}."
    )

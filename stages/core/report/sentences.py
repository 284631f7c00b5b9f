"""The sentences of the report, built from the metrics, with intervals and controls.

`metrics` is a dictionary of the files in metrics/, by stage. An estimate is a dictionary of estimate, low, high. R is
the log-probability of the true emotion, in nats.
"""

from __future__ import annotations

from typing import Any

from stages.core.run.labels import CLOTHED, CONDITIONS, OTHER_CONDITION, REGIONS, SEMI_NUDE
from stages.core.schema import CheckHeatmaps, Clip, Demo, Inference, Ingest, TrainSae

GAPS = {
    "ranked": "rise of R by editing the latent, in nats, in the condition read worse, less the change in the other, to "
    "first order, while the latents of earlier steps are edited. Ranked latents are not tested: p is 1",
    "bias": "effect on R, in nats, in the condition read better minus the other, measured while the latents of earlier "
    "steps are edited",
    "perception": "activation, clothed minus semi-nude",
}
WOMEN = {SEMI_NUDE: "semi-nude women", CLOTHED: "women in a shirt"}
SEARCHES = {
    "labels_swapped": "with the twins' labels swapped at random",
    "emotions_shuffled": "with emotions shuffled",
    "wrong_emotion": "for a wrong emotion",
    "condition_ignored": "with the condition ignored",
}
TOTALS = {
    "activity": "active latents on a token",
    "contribution": "contribution to R (nats)",
    "length_cls": "length of the edit at the class token",
    "length_patches": "length of the edit at the patches",
    "edited_latents": "edited latents in the set",
}
LABELS = {
    "colour": "the top's colour",
    "condition": "the garment",
    "emotion": "the face",
    "intensity": "the intensity of the expression",
    "identity": "the woman",
}


def fixed(value: float, digits: int, sign: str = "") -> str:
    """Write a number with this many decimals. Zero has no sign, however it was rounded.

    sign: "+" writes the sign of a positive number, too.
    """
    written = f"{value:{sign}.{digits}f}"
    return written.lstrip("+-") if float(written) == 0 else written


def percent(found: dict[str, float]) -> str:
    """Write a share and its interval as text in percent, such as "31 % [24, 38]".

    found: the keys estimate, low and high (ends of the interval), each a share from 0 to 1.
    """
    estimate, low, high = (fixed(100 * found[key], 0) for key in ("estimate", "low", "high"))
    return f"{estimate} % [{low}, {high}]"


def points(found: dict[str, float]) -> str:
    """Write a difference of two accuracies and its interval as text in percentage points, such as "63 points [56, 71]".

    found: the keys estimate, low and high (ends of the interval), each a difference of shares from -1 to 1.
    """
    estimate, low, high = (fixed(100 * found[key], 0) for key in ("estimate", "low", "high"))
    return f"{estimate} {point_word(estimate)} [{low}, {high}]"


def point_word(count: str) -> str:
    """Return the word after a rounded number of percentage points: "point" after 1 and -1, else "points".

    count: the number as it is written, such as "+1".
    """
    return "point" if count.lstrip("+-") == "1" else "points"


def number(found: dict[str, float]) -> str:
    """Write an estimate and its interval as text with two decimals, such as "2.35 [2.10, 2.63]".

    found: the keys estimate, low and high (ends of the interval).
    """
    estimate, low, high = (fixed(found[key], 2) for key in ("estimate", "low", "high"))
    return f"{estimate} [{low}, {high}]"


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
        return (
            "This CLIP does not read faces: it names the emotion correctly on "
            f"{percent(accuracy[CLOTHED])} of the images of women in a shirt and on {percent(accuracy[SEMI_NUDE])} of "
            f"those of the same women semi-nude, where chance is {metrics['extract']['accuracy']['chance']:.0%}. "
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
    lifts = [heat[condition]["estimate"] for condition in CONDITIONS]

    def card(found: dict[str, float], label: str, in_points: bool = False) -> dict[str, str]:
        scale, digits = (100, 0) if in_points else (1, 2)
        value, low, high = (fixed(scale * found[key], digits, "+") for key in ("estimate", "low", "high"))
        unit = f" {point_word(value)}" if in_points else ""
        return {"value": f"{value}{unit}", "label": label, "interval": f"interval [{low}, {high}]"}

    shown = [
        card(ablate["accuracy"]["original"]["gap"], "emotion gap: accuracy clothed minus semi-nude", in_points=True),
        card(greyed, "change of semi-nude accuracy when the bust is greyed out", in_points=True),
        card(heat["gap"], f"bust-lift gap of the heatmaps: {lifts[1]:.2f} clothed minus {lifts[0]:.2f} semi-nude"),
    ]
    if chosen["latents"]:
        gain = ablate["edit"]["accuracy"]["gain"]
        shown.insert(2, card(gain, f"gain of accuracy on {WOMEN[chosen['losing']]} by the edit", in_points=True))
    return shown


def stability(metrics: dict[str, Any]) -> str:
    """Write which share of the chosen SAE's latents comes back when the SAE is trained again with other seeds.

    A latent comes back if it is matched to a latent of the other SAE, one to one, and the cosine of their decoder
    directions is at least 0.7.

    metrics: the contents of the metrics files, by stage; `check_stability` is read.
    Returns "" if no other seed was tried.
    """
    found = metrics["check_stability"]
    if not found["n_other_seeds"]:
        return ""
    seeds = "another seed" if found["n_other_seeds"] == 1 else f"{found['n_other_seeds']:.0f} other seeds"
    return (
        f"Trained again with {seeds}, the chosen SAE has {100 * found['matched_share']:.0f} % of its latents again: "
        "decoder directions with a cosine of at least 0.7, matched one to one. What does not come back belongs to the "
        "seed as much as to the data."
    )


def described(metrics: dict[str, Any]) -> str:
    """Write what the edited latents encode on confirmation women, who were held out when the latents were chosen.

    A latent encodes the label that explains most of its activation: the top's colour, the garment, the face, the
    intensity of the expression or the woman. It encodes none if every label explains little, or no more than chance
    would. If the images have a label for the colour, the text adds ranks. All latents are ranked by how much they harm
    the emotion readout on semi-nude women; rank 1 harms most. For each colour, one latent detects this colour best. The
    text names the smallest and the largest rank of these latents.

    metrics: the contents of the metrics files, by stage; `describe_latents` is read.
    """
    found = metrics["describe_latents"]
    shares = {label: found["edited_latents"].get(f"encode_{label}", 0) for label in LABELS}
    named = [f"{LABELS[label]} for {100 * share:.0f} % of them" for label, share in shares.items() if share > 0]
    says = f"The label that explains most of an edited latent's activation is {', '.join(named)}. " if named else ""
    if "planted_feature" in found:
        planted = found["planted_feature"]
        says += (
            "When all latents are ranked by harm, with nothing edited, the best detectors of the four colours have "
            f"ranks {planted['best_rank']} to {planted['worst_rank']}. "
        )
    return says


def causal(metrics: dict[str, Any], chosen: dict[str, Any], n_random_sets: int) -> str:
    """Write how the edit changed R (log-probability of the true emotion, nats), and how far R depends on each region.

    The regions are bust and face. R depends on a region if R changes when the region is greyed out. The text gives this
    change on semi-nude images; if latents were edited, before and after the edit.

    metrics: the contents of the metrics files, by stage; `ablate` is read.
    chosen: content of data/selection/selection.json; `latents` and `losing` (the condition read worse) are used.
    n_random_sets: number of matched random sets of latents that the edit was compared with.
    """
    ablate = metrics["ablate"]
    edit, relied = ablate["edit"]["R"], ablate["reliance"]
    R = "R is the log-probability of the true emotion, in nats."
    bust, face = (number(relied["original"][region]["R"][SEMI_NUDE]) for region in REGIONS)
    if not chosen["latents"]:
        return f"{R} Greying out the bust changes R of semi-nude women by {bust} nats, greying out the face by {face}."
    patches = ablate["guardrails"]["edited_patches_largest_R_change"]
    last = " After the last block only the class token reaches the embedding, so editing patches there changes nothing."
    recovered = (
        f" ({100 * edit['share_of_gap_recovered']:.0f} % of the gap in R)" if "share_of_gap_recovered" in edit else ""
    )
    losing, other = chosen["losing"], OTHER_CONDITION[chosen["losing"]]
    bust_after, face_after = (number(relied["edited"][region]["R"][SEMI_NUDE]) for region in REGIONS)
    best = p = ""
    if "best_random_set" in edit:
        best = (
            f"The best of {n_random_sets} matched random sets of latents raises R of {WOMEN[losing]} by "
            f"{edit['best_random_set']:.2f} nats. "
        )
        p = f" (p = {ablate['edit']['bust_reliance']['p_random_sets']:.3f} for this fall, against random sets)"
    return (
        f"{R} The edit raises R of {WOMEN[losing]} by {number(edit['gain'])} nats{recovered} and lowers R of "
        f"{WOMEN[other]} by {number(edit['cost'])} nats. {best}"
        f"Greying out the bust changes R of semi-nude women by {bust} nats before the edit and by {bust_after} nats "
        f"after it{p}. "
        f"Greying out the face changes it by {face} nats before the edit and by {face_after} nats after it."
        f"{last if patches == 0 else ''}"
    )


def random_sets(metrics: dict[str, Any]) -> str:
    """Write how like the edited set of latents the random sets are, or in which quantity no random set comes near it.

    metrics: the contents of the metrics files, by stage; `ablate` is read.
    Returns "" if there are no random sets.
    """
    compared = metrics["ablate"]["random_sets"]
    if not compared:
        return ""
    held, totals = compared["edited_latents"], {n: found for n, found in compared.items() if "difference" in found}
    shared = (
        f"A random set may hold up to half of the edited latents; the median set holds {held['median']:.0f} of "
        f"{held['edited']:.0f}."
    )
    name, worst = max(totals.items(), key=lambda item: abs(item[1]["difference"]))
    if "p_random_sets" in metrics["ablate"]["edit"]["R"]:
        return (
            "The random sets are drawn so that they are as active as the edited set, contribute as much to R and move "
            "the tokens as far. In each of these totals, the median set differs from the edited set by "
            f"{100 * abs(worst['difference']):.1f} % at most. {shared}"
        )
    return (
        "The edited set is not compared with random sets of latents, because random sets like it were not found. They "
        f"differ most in one total, {TOTALS[name]}: {worst['edited']:.3g} for the edited set, {worst['median']:.3g} "
        f"for the median random set. {shared}"
    )


def embeddings(metrics: dict[str, Any], chosen: dict[str, Any]) -> str:
    """Write how the edit changed two properties of the image embeddings.

    The text gives a number for each property, before and after the edit:
        association    how much nearer an image is to the text of its own emotion than to the texts of the others. The
                       number is the difference of clothed and semi-nude images, in standard deviations.
        condition      accuracy of a linear probe that tells semi-nude from clothed images by their embedding

    metrics: the contents of the metrics files, by stage; `ablate` is read.
    chosen: content of data/selection/selection.json. Returns "" if no latent was edited.
    """
    if not chosen["latents"]:
        return ""
    before, after = (metrics["ablate"]["embeddings"][arm] for arm in ("original", "edited"))
    return (
        "Secondary endpoints: the association of images with the text of their emotion differs between the conditions "
        f"(clothed minus semi-nude) by {before['association_effect_size']:.2f} standard deviations before the edit and "
        f"by {after['association_effect_size']:.2f} after it. A linear probe on the embedding recognises the condition "
        f"of {before['condition_decodable']:.0%} of images before the edit and of {after['condition_decodable']:.0%} "
        "after it. A value of 50 % would mean that the edit made the model blind to the garment."
    )


WHICH_MAP = (
    "The maps of this section measure the bias, in nats of the emotion readout; the Grad-ECLIP maps of the next "
    "section explain the cosine of image and prompt, as in the published study, and do not tell how large a bias is."
)
"""Which kind of map answers which question. The report begins its section of the maps of the readout with it."""


def readout_maps(metrics: dict[str, Any], chosen: dict[str, Any]) -> str:
    """Write what the bust adds to R (log-probability of the true emotion, nats) in both conditions, by the signed maps.

    The numbers are sums of the occlusion map in the bust, and their gap (clothed minus semi-nude) beside the gap of
    equal areas elsewhere; if latents were edited, before and after the edit.

    metrics: the contents of the metrics files, by stage; `map_readout` is read.
    chosen: content of data/selection/selection.json; `latents` is used.
    """
    found, images = metrics["map_readout"]["maps"]["occlusion"], metrics["map_readout"]["images"]
    bust, control = (found["original"][f"{place}_sum"] for place in ("bust", "bust_control"))
    says = (
        "A patch is blue if hiding it lowers R, and red if hiding it raises R: there the picture misleads the model. "
        f"On {images['mapped']:.0f} images of {images['women']:.0f} women, the bust adds {number(bust[SEMI_NUDE])} "
        f"nats to R of semi-nude and {number(bust[CLOTHED])} nats to R of clothed women. The gap (clothed minus "
        f"semi-nude) is {number(bust['gap'])} nats, and {number(control['gap'])} on equal areas outside bust and face."
    )
    if not chosen["latents"]:
        return f"{says} Nothing was edited, so these are maps of the original model alone."
    return f"{says} With the edit, the gap of the bust is {number(found['edited']['bust_sum']['gap'])} nats."


def heatmaps(metrics: dict[str, Any], chosen: dict[str, Any]) -> str:
    """Write how the edit changed the heatmaps on the bust, and whether the emotion readout changed with them.

    Energy lift on the bust is the share of a map's mass on the bust, divided by the bust's share of the picture. The
    text gives its gap (clothed minus semi-nude) before and after the edit.
    R is the log-probability of the true emotion, in nats. The readout recovers if the edit raises R in the condition
    read worse and the whole interval of this change lies above zero. The text says whether the readout recovers.

    metrics: the contents of the metrics files, by stage; `heatmap` and `ablate` are read.
    chosen: content of data/selection/selection.json. If no latent was edited, only the original maps are described.
    """
    lift = {arm: metrics["heatmap"][arm]["bust_energy_lift"]["gap"] for arm in ("original", "edited")}
    defined = (
        "Energy lift is the share of the map's mass in a region, divided by the region's share of the picture; 1 is "
        "chance. The bust-lift gap is clothed minus semi-nude, so it is negative if the map is stronger on the "
        f"semi-nude bust. It is {number(lift['original'])} in the original model"
    )
    if not chosen["latents"]:
        return f"{defined}."
    readout = metrics["ablate"]["edit"]["R"]["gain"]
    recovered = readout["low"] > 0
    if recovered and lift["original"]["high"] >= 0:
        verdict = (
            "The readout recovers, but the original heatmap shows no negative gap: "
            "here the heatmap does not measure the bias."
        )
    elif recovered and lift["edited"]["low"] <= lift["original"]["high"]:
        verdict = (
            "The readout recovers, but the heatmap gap does not shrink: here the heatmap does not measure the bias."
        )
    elif recovered:
        verdict = "Readout and heatmap move together."
    else:
        verdict = "The readout does not recover, whatever the heatmap does."
    return f"{defined} and {number(lift['edited'])} in the edited model. {verdict}"


def checks(metrics: dict[str, Any]) -> str:
    """Write how much Grad-ECLIP's maps change when the model or the text changes.

    The text gives the rank correlation of the changed map with the original map in four cases:
        the model's projection has random values
        all parameters of the model have random values
        the prompt names another emotion
        the explained block has one attention head, as in the published code of Grad-ECLIP
    For the last case, the text also gives the mean absolute change of the cosine of image and text.

    metrics: the contents of the metrics files, by stage; `check_heatmaps` is read.
    """
    found = metrics["check_heatmaps"]
    parameters, head = found["parameters"], found["single_head"]
    return (
        "A map that explains the model must change if the parameters or the text change. The rank correlation with the "
        f"original Grad-ECLIP map is {parameters['agreement_projection_random']:.2f} if the projection is random, "
        f"{parameters['agreement_all_random']:.2f} if all parameters are random, and "
        f"{found['text']['agreement_with_another_emotion']:.2f} for the prompt of another emotion. "
        f"It is {head['agreement']:.2f} if the explained block runs with one head, as in the published code; "
        f"the cosine of image and text then changes by {head['mean_cosine_drift']:.3f} on average."
    )


def images_checked(config: CheckHeatmaps) -> str:
    """Write on how many images the checks of the maps were made. Fewer are taken where there are no more.

    config: the section `check_heatmaps` of params.yaml.
    """
    return (
        f"The curves of deletion and insertion are means over {config.n_perturbed} images at most. The bust is deleted "
        f"in {config.n_bust_pairs} pairs at most. Maps are drawn again for {config.n_redrawn} images at most."
    )

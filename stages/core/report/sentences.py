"""The sentences of the sections of the report, built from the metrics, with intervals and controls.

`metrics` is a dictionary of the files in metrics/, by stage. An estimate is a dictionary of estimate, low, high. R is
the log-probability of the true emotion, in nats.
"""

from __future__ import annotations

from typing import Any

from stages.core.report.wording import LABELS, TOTALS, WOMEN, in_percent, number
from stages.core.run.labels import CLOTHED, OTHER_CONDITION, REGIONS, SEMI_NUDE
from stages.core.schema import CheckHeatmaps


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
        f"Trained again with {seeds}, the chosen SAE has {in_percent(found['matched_share'])} of its latents again: "
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
    named = [f"{LABELS[label]} for {in_percent(share)} of them" for label, share in shares.items() if share > 0]
    says = f"The label that explains most of an edited latent's activation is {', '.join(named)}. " if named else ""
    if "planted_feature" in found:
        planted = found["planted_feature"]
        says += (
            "When all latents are ranked by harm, with nothing edited, the best detectors of the top's colours have "
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
        f" ({in_percent(edit['share_of_gap_recovered'])} of the gap in R)" if "share_of_gap_recovered" in edit else ""
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
    told_before, told_after = (in_percent(found["condition_decodable"]) for found in (before, after))
    return (
        "Secondary endpoints: the association of images with the text of their emotion differs between the conditions "
        f"(clothed minus semi-nude) by {before['association_effect_size']:.2f} standard deviations before the edit and "
        f"by {after['association_effect_size']:.2f} after it. A linear probe on the embedding recognises the condition "
        f"of {told_before} of images before the edit and of {told_after} after it. "
        "A value of 50 % would mean that the edit made the model blind to the garment."
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

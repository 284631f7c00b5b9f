"""The tables of the report. Every cell is text.

`metrics` is a dictionary of the files in metrics/, by stage.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from statistics import fmean
from typing import Any

import pandas as pd

from stages.core import figures
from stages.core.report import published
from stages.core.report.wording import SEARCHES, TOTALS, fixed, mean_and_spread, number, percent, points, power
from stages.core.run.labels import CLOTHED, CONDITIONS, REGIONS, SEMI_NUDE

LIBRARIES = (
    "torch",
    "open_clip_torch",
    "dvc",
    "zarr",
    "numcodecs",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "matplotlib",
)

SAE_NUMBERS = (
    *("layer", "expansion", "chosen", "recon", "l0", "l0_fraction", "fvu", "dead_fraction"),
    *("mwu_p", "auc", "cliffs_delta", "first_order_correlation", "n_bias", "n_perception", "smallest_p"),
    *("cosine_difference_mean", "cosine_difference_std"),
)  # columns of plots/select_sae.csv that the report reads; `saes` and `cosines` say what they are
SAE_GAPS = ("held_out_fvu", "net_gain")  # so are these; a cell is empty where nobody was held out, or nothing searched
LATENT_NUMBERS = ("latent", "step", "mean", "low", "high", "p_max_t", "act_mean", "act_p_max_t", "firing")
CARD_NUMBERS = ("latent", "monosemanticity")
WITHOUT_EDIT = ("original", "reconstructed", "noise", "bust_greyed", "face_greyed")
"""Arms that say something where nothing was edited. The others are the edit, parts of it, or its rivals."""


def arms(metrics: dict[str, Any], edited: bool) -> pd.DataFrame:
    """Tabulate how well each arm names the emotion. An arm is a version of the model or of the images.

    Examples of arms are `original`, `edited` (with the chosen latents edited) and `bust greyed`. Each arm has a row.

    metrics: the contents of the metrics files, by stage; `ablate` is read.
    edited: whether latents were edited. If not, only the arms of WITHOUT_EDIT have rows.
    Returns these columns, every number with its interval:
        arm                                         name of the arm
        accuracy, semi-nude; accuracy, clothed      emotion accuracy on these images
        gap in accuracy                             clothed minus semi-nude
        gap in R (nats)                             R, clothed minus semi-nude; R: log-probability of the true emotion
    """
    rows = []
    for arm, accuracy in metrics["ablate"]["accuracy"].items():
        if not edited and arm not in WITHOUT_EDIT:
            continue
        r = metrics["ablate"]["R"][arm]
        rows.append(
            {
                "arm": arm.replace("_", " "),
                "accuracy, semi-nude": percent(accuracy[SEMI_NUDE]),
                "accuracy, clothed": percent(accuracy[CLOTHED]),
                "gap in accuracy": points(accuracy["gap"]),
                "gap in R (nats)": number(r["gap"]),
            }
        )
    return pd.DataFrame(rows)


def random_sets(metrics: dict[str, Any]) -> pd.DataFrame:
    """Tabulate the totals of the edited set of latents beside those of the random sets, a row per quantity.

    metrics: the contents of the metrics files, by stage; `ablate` is read.
    Returns the columns: quantity, edited set (its total), 5 %, 50 % and 95 % of random sets (quantiles), and rank of
    the edited set (1 if its total is below those of all random sets).
    """
    return pd.DataFrame(
        [
            {
                "quantity": TOTALS[name],
                "edited set": f"{found['edited']:.4g}",
                **{
                    f"{share} % of random sets": f"{found[key]:.4g}"
                    for share, key in ((5, "low"), (50, "median"), (95, "high"))
                },
                "rank of the edited set": f"{found['rank']:.0f}",
            }
            for name, found in metrics["ablate"]["random_sets"].items()
        ]
    )


def null_searches(metrics: dict[str, Any]) -> pd.DataFrame:
    """Tabulate what searches on labels that mean nothing gain and cost, beside the edit, a row per kind of search.

    Gain is the rise in the condition that CLIP reads worse, cost the fall in the other, on women held out.

    metrics: the contents of the metrics files, by stage; `ablate` is read.
    Returns the columns: search, searches (their number), then for accuracy and R (log-probability of the true emotion)
    the median gain, the largest gain, the median cost and the p of the edit's gain against these searches.
    """
    edit = metrics["ablate"]["edit"]
    of_edit: dict[str, Any] = {"search": "the edit", "searches": "1"}
    scales = {"accuracy": (100, "points", "{:.0f}"), "R": (1, "nats", "{:.2f}")}
    for endpoint, (scale, unit, layout) in scales.items():
        gain, cost = (layout.format(scale * edit[endpoint][key]["estimate"]) for key in ("gain", "cost"))
        of_edit |= {f"gain in {endpoint} ({unit})": gain, f"cost in {endpoint}": cost, f"p ({endpoint})": ""}
    rows = [of_edit]
    for kind, found in metrics["ablate"]["null_searches"].items():
        row: dict[str, Any] = {"search": f"the same, {SEARCHES[kind]}", "searches": f"{found['n']:.0f}"}
        for endpoint, (scale, unit, layout) in scales.items():
            median, largest, cost = (
                layout.format(scale * found[key])
                for key in (f"median_{endpoint}_gain", f"largest_{endpoint}_gain", f"median_{endpoint}_cost")
            )
            p = f"{found[f'p_{endpoint}']:.3f}" if f"p_{endpoint}" in found else ""
            gain = median if found["n"] == 1 else f"{median}, at most {largest}"
            row |= {f"gain in {endpoint} ({unit})": gain, f"cost in {endpoint}": cost, f"p ({endpoint})": p}
        rows.append(row)
    return pd.DataFrame(rows)


def lifts(metrics: dict[str, Any], edited: bool) -> pd.DataFrame:
    """Tabulate how much of the heatmaps lies on bust and face. Each arm, score and region has a row.

    An arm is a version of the model, such as `original` or `edited`. Scores are energy lift (a region's share of the
    map's mass, divided by its share of the picture) and IoU with the region's mask.

    metrics: the contents of the metrics files, by stage; `heatmap` is read.
    edited: whether latents were edited. If not, the edited model is the original one and has no rows.
    Returns these columns:
        arm, score             the arm; the score and its region
        semi-nude, clothed     mean score on these images, with its interval
        gap                    clothed minus semi-nude, with its interval
        chance                 mean score of a map without information
    """
    rows = []
    for arm, scores in metrics["heatmap"].items():
        if arm == "images" or (arm == "edited" and not edited):
            continue
        for name, found in scores.items():
            rows.append(
                {
                    "arm": arm,
                    "score": name.replace("_", " "),
                    "semi-nude": number(found[SEMI_NUDE]),
                    "clothed": number(found[CLOTHED]),
                    "gap": number(found["gap"]),
                    "chance": f"{found['chance']:.2f}",
                }
            )
    return pd.DataFrame(rows)


def region_sums(metrics: dict[str, Any]) -> pd.DataFrame:
    """Tabulate what bust and face add to R (log-probability of the true emotion, nats), and regions of equal area.

    The values are sums of the occlusion map. A region of equal area is the mean over all places where the mask of the
    bust, or of the face, touches neither of them. Each model (original, and edited if latents were edited) and region
    has a row.

    metrics: the contents of the metrics files, by stage; `map_readout` is read.
    Returns these columns, every number with its interval, nats:
        model, region
        semi-nude, clothed, gap     mean over these images; gap: clothed minus semi-nude
    """
    return pd.DataFrame(
        [
            {
                "model": arm,
                "region": name,
                "semi-nude": number(found[f"{place}_sum"][SEMI_NUDE]),
                "clothed": number(found[f"{place}_sum"][CLOTHED]),
                "gap": number(found[f"{place}_sum"]["gap"]),
            }
            for arm, found in metrics["map_readout"]["maps"]["occlusion"].items()
            for region in REGIONS
            for place, name in ((region, region), (f"{region}_control", f"elsewhere, area of the {region}"))
        ]
    )


def maps(metrics: dict[str, Any]) -> pd.DataFrame:
    """Compare methods that draw heatmaps, a row per method, on the original model.

    metrics: the contents of the metrics files, by stage; `check_heatmaps` is read.
    Returns these columns. R is the log-probability of the true emotion. A gap is clothed minus semi-nude:
        map                              name of the method
        <region> lift, <condition>       energy lift: the region's share of the map's mass / its share of the picture
        bust-lift gap                    gap of the energy lift on the bust, with its interval
        change of R by deleting the bust, gap (nats)
                                         gap, with its interval, of the mean change of R while the patches of the bust
                                         are greyed out in the map's order
        deletion (nats), insertion (nats)
                                         area under R as patches are deleted or inserted in the map's order, mean of
                                         both conditions
    """
    found = metrics["check_heatmaps"]
    rows = []
    for name, scores in found["maps"].items():
        areas = found["curves"][name]
        rows.append(
            {
                "map": name.replace("_", " "),
                **{
                    f"{region} lift, {figures.CONDITION_LABELS[c]}": f"{scores[f'{region}_energy_lift'][c]:.2f}"
                    for region in REGIONS
                    for c in CONDITIONS
                },
                "bust-lift gap": number(scores["bust_energy_lift"]["gap"]),
                "change of R by deleting the bust, gap (nats)": number(scores["bust_deletion"]["gap"]),
                **{
                    f"{kind} (nats)": fixed(fmean(areas[f"{kind}_area_{c}"] for c in CONDITIONS), 2)
                    for kind in ("deletion", "insertion")
                },
            }
        )
    return pd.DataFrame(rows)


def latents(chosen: pd.DataFrame, cards: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the edited latents, a row per latent in the order of `chosen`.

    A gap is the value on the clothed image of a pair minus the value on the semi-nude image.

    chosen: tests on discovery women, who were used to choose the latents. Columns:
        latent, step                index of the latent, and the step of the search that chose it
        mean, low, high, p_max_t    mean gap that was tested, its interval and its family-wise p. It is the gap in
                                    activation, or in the effect on the log-probability of the true emotion (nats)
        act_mean, act_p_max_t       mean gap in activation, and its family-wise p
        firing, top_images          share of tokens that the latent is active on, and the images that activate it most
    cards: descriptions on confirmation women, who were held out. Every latent of `chosen` needs a row. Columns: latent,
        encodes (a label or "none"), monosemanticity (how alike the images are that activate the latent), and for each
        label the share of variance that it explains.
    Returns the same values as text, with a heading for each column.
    """
    cards = cards.set_index("latent").loc[chosen["latent"]]
    gaps = chosen[["mean", "low", "high"]].to_numpy()
    return pd.DataFrame(
        {
            "latent": chosen["latent"],
            "step": chosen["step"],
            "gap": [f"{fixed(mean, 3)} [{fixed(low, 3)}, {fixed(high, 3)}]" for mean, low, high in gaps],
            "p (max-T)": chosen["p_max_t"].map("{:.4f}".format),
            "activation gap (p)": [
                f"{fixed(mean, 3)} ({p:.4f})" for mean, p in chosen[["act_mean", "act_p_max_t"]].to_numpy()
            ],
            "tokens": chosen["firing"].map("{:.1%}".format),
            "encodes": [
                row["encodes"] if row["encodes"] == "none" else f"{row['encodes']} ({row[row['encodes']]:.0%})"
                for _, row in cards.iterrows()
            ],
            "monosemanticity": cards["monosemanticity"].map("{:.2f}".format).to_numpy(),
            "top images (discovery)": chosen["top_images"],
        }
    )


def saes(table: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the quality of the SAEs and what was found in them, a row per SAE of the grid.

    table: content of plots/select_sae.csv. Columns: layer, expansion, chosen (1 for the SAE that is used, else 0),
        recon (mean squared error), l0 (active latents per token), l0_fraction, fvu and held_out_fvu (fraction of
        variance unexplained), dead_fraction; mwu_p, auc and cliffs_delta (Mann-Whitney U test over latents);
        first_order_correlation (of estimated effects with measured effects of the latents); n_bias and n_perception
        (numbers of latents found); searched (1 if edits were tried) and net_gain. net_gain belongs to the best edit:
        the gain of R (log-probability of the true emotion, nats) in the condition read worse minus the absolute change
        of R in the other.
    Returns the same values as text, with a heading for each column. The column SAE names layer and expansion. If no
        SAE was searched, there is no column of net gains.
    """
    shown = pd.DataFrame(
        {
            "SAE": [f"layer {r.layer} × {r.expansion}{' (chosen)' if r.chosen else ''}" for r in table.itertuples()],
            "recon": table["recon"].map("{:.2e}".format),
            "L0": [f"{r.l0:.1f} ({r.l0_fraction:.2%})" for r in table.itertuples()],
            "FVU, last step": table["fvu"].map("{:.3f}".format),
            "FVU, held out": table["held_out_fvu"].map("{:.3f}".format).replace("nan", "none"),
            "dead": table["dead_fraction"].map("{:.1%}".format),
            "MWU p": table["mwu_p"].map(power),
            "AUC": table["auc"].map("{:.3f}".format),
            "Cliff's δ": [fixed(delta, 3) for delta in table["cliffs_delta"]],
            "first order, r": table["first_order_correlation"].map("{:.2f}".format),
            "bias latents": table["n_bias"],
            "perception latents": table["n_perception"],
            "net gain (nats)": [fixed(r.net_gain, 2) if r.searched else "not searched" for r in table.itertuples()],
        }
    )
    return shown if table["searched"].any() else shown.drop(columns="net gain (nats)")


def cosines(table: pd.DataFrame) -> pd.DataFrame:
    """Tabulate how an SAE spliced into CLIP changes the cosine of audit images and prompts, beside published numbers.

    table: a row per SAE: layer, expansion, cosine_difference_mean and cosine_difference_std. The difference is the
        cosine with the SAE minus the cosine without, over audit images.
    Returns a row per expansion. The column `factor` names the expansion. Each layer of `table` has a column. The last
    column is layer 22 of the published study. A cell is "mean ± standard deviation", or "none" if there is no such SAE.
    """
    shown = {
        f"layer {layer}": part.set_index("expansion").apply(
            lambda row: mean_and_spread(row["cosine_difference_mean"], row["cosine_difference_std"]), axis=1
        )
        for layer, part in table.groupby("layer")
    }
    study = published.COSINE.set_index("expansion").apply(lambda row: mean_and_spread(row["mean"], row["std"]), axis=1)
    ours = pd.DataFrame(shown).assign(**{"the study, layer 22": study}).fillna("none")
    return ours.rename_axis("factor").reset_index().assign(factor=lambda rows: rows["factor"].map("× {}".format))


def study() -> pd.DataFrame:
    """Tabulate the nine SAEs of the study that this project replicates, with the numbers printed there.

    Returns a row per SAE, all text:
        SAE                           layer and expansion
        recon, FVU, total             losses of the last training step
        L0 (share)                    share of latents active in that step
        MWU p, AUC, Cliff's δ         Mann-Whitney U test over latents, semi-nude against clothed images
    """
    table = published.TRAINING.merge(published.TESTS, on=["layer", "expansion"])
    return pd.DataFrame(
        {
            "SAE": [f"layer {r.layer} × {r.expansion}" for r in table.itertuples()],
            "recon": table["recon"].map("{:.2e}".format),
            "L0 (share)": table["l0_fraction"].map("{:.2%}".format),
            "FVU": table["fvu"].map("{:.3f}".format),
            "total": table["total"].map("{:.2e}".format),
            "MWU p": table["mwu_p"].map("{:.2e}".format),
            "AUC": table["auc"].map("{:.3f}".format),
            "Cliff's δ": table["cliffs_delta"].map("{:.3f}".format),
        }
    )


def provenance(metadata: dict[str, Any]) -> pd.DataFrame:
    """Tabulate the versions of Python and the libraries, and the hashes of data set and model.

    metadata: metadata of the chosen SAE; needs dataset_sha256 and model, the hash of CLIP's files.
    Returns the columns `what` and `version or hash`.
    """
    rows = [("Python", platform.python_version()), *((name, version(name)) for name in LIBRARIES)]
    rows += [("data set, sha256", metadata["dataset_sha256"]), ("CLIP, sha256", metadata["model"])]
    return pd.DataFrame(rows, columns=["what", "version or hash"])

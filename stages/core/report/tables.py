"""The tables of the report. Every cell is text.

`metrics` is a dictionary of the files in metrics/, by stage.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import pandas as pd

from stages.core import figures
from stages.core.report import published
from stages.core.report.sentences import number, percent, points
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


def arms(metrics: dict[str, Any]) -> pd.DataFrame:
    """Tabulate the causal test, a row per arm: a version of the model or the images, such as `edited`, `bust greyed`.

    metrics: the contents of the metrics files, by stage; `ablate` is read.
    Returns the arm, the accuracy on semi-nude and on clothed images, and the gaps (clothed minus semi-nude) in accuracy
    and in R (log-probability of the true emotion, nats), each number with its interval.
    """
    rows = []
    for arm, accuracy in metrics["ablate"]["accuracy"].items():
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


def lifts(metrics: dict[str, Any]) -> pd.DataFrame:
    """Tabulate how much of the heatmaps lies on bust and face, a row per arm, region and score (energy lift, IoU).

    An arm is a version of the model, such as `original` or `edited`.

    metrics: the contents of the metrics files, by stage; `heatmap` is read.
    Returns the arm, the score with the name of its region, its mean on semi-nude and on clothed images, the gap
    (clothed minus semi-nude), and the value that chance gives. All but the last have their interval.
    """
    rows = []
    for arm, scores in metrics["heatmap"].items():
        if arm == "images":
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


def maps(metrics: dict[str, Any]) -> pd.DataFrame:
    """Compare methods that draw heatmaps, a row per method, on the original model.

    metrics: the contents of the metrics files, by stage; `check_heatmaps` is read.
    Returns the name of the map, its energy lift on each region in each condition, the gap (clothed minus semi-nude) of
    the bust lift, the gap in the change of R (log-probability of the true emotion) by deleting the bust in the map's
    order, and the area under R as patches are deleted or inserted in the map's order (mean of both conditions). R and
    areas are in nats.
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
                "deletion (nats)": f"{sum(areas[f'deletion_area_{c}'] for c in CONDITIONS) / 2:.2f}",
                "insertion (nats)": f"{sum(areas[f'insertion_area_{c}'] for c in CONDITIONS) / 2:.2f}",
            }
        )
    return pd.DataFrame(rows)


def latents(chosen: pd.DataFrame, cards: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the edited latents, a row per latent in the order of `chosen`.

    chosen: tests on discovery women (those the latents were chosen on), as `select_sae` writes them to latents.csv.
        Columns: latent, step, mean, low, high, p_max_t (the gap that defines the list), act_mean, act_p_max_t
        (activation gap), firing, top_images.
    cards: descriptions on confirmation women (all others), as `describe_latents` writes them. Columns: latent, encodes
        (a label or "none"), a column of eta^2 for each label, monosemanticity. Every latent of `chosen` needs a row.
    Returns the gap with its interval, the p-values, the share of tokens it fires on, what the latent encodes with eta^2
    in percent, its monosemanticity and its top images.
    """
    cards = cards.set_index("latent").loc[chosen["latent"]]
    gaps = chosen[["mean", "low", "high"]].to_numpy()
    return pd.DataFrame(
        {
            "latent": chosen["latent"],
            "step": chosen["step"],
            "gap": [f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in gaps],
            "p (max-T)": chosen["p_max_t"].map("{:.4f}".format),
            "activation gap": chosen["act_mean"].map("{:.3f}".format),
            "p of activation gap (max-T)": chosen["act_p_max_t"].map("{:.4f}".format),
            "fires on": chosen["firing"].map("{:.1%} of tokens".format),
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
        recon, l0, l0_fraction, fvu, held_out_fvu, dead_fraction, mwu_p, auc, cliffs_delta, first_order_correlation
        (of first-order effects with real ablations), n_bias and n_perception (numbers of latents found), net_gain (of
        the best edit: what the readout of semi-nude women gains minus what that of clothed women loses, nats).
    Returns the same columns as text: reconstruction error, L0, FVU, dead share, the published tests (Mann-Whitney U,
    AUC, Cliff's delta), this correlation, the numbers of latents and the net gain.
    """
    return pd.DataFrame(
        {
            "SAE": [f"layer {r.layer} × {r.expansion}{' (chosen)' if r.chosen else ''}" for r in table.itertuples()],
            "recon": table["recon"].map("{:.2e}".format),
            "L0": [f"{r.l0:.1f} ({r.l0_fraction:.2%})" for r in table.itertuples()],
            "FVU, last step": table["fvu"].map("{:.3f}".format),
            "FVU, held out": table["held_out_fvu"].map("{:.3f}".format).replace("nan", "none"),
            "dead": table["dead_fraction"].map("{:.1%}".format),
            "MWU p": table["mwu_p"].map("{:.2e}".format),
            "AUC": table["auc"].map("{:.3f}".format),
            "Cliff's δ": table["cliffs_delta"].map("{:.3f}".format),
            "first order, r": table["first_order_correlation"].map("{:.2f}".format),
            "bias latents": table["n_bias"],
            "perception latents": table["n_perception"],
            "net gain (nats)": table["net_gain"].map("{:.2f}".format),
        }
    )


def cosines(table: pd.DataFrame) -> pd.DataFrame:
    """Tabulate how an SAE spliced into CLIP changes the cosine of audit images and prompts, beside published numbers.

    table: needs layer, expansion, cosine_difference_mean and cosine_difference_std (cosine with the SAE minus without).
    Returns a row per expansion, named in the column `factor`, a column for each layer and one for layer 22 of the
    published study. A cell has "mean ± standard deviation" over images, or "none" if there is no such SAE.
    """
    shown = {
        f"layer {layer}": part.set_index("expansion").apply(
            lambda row: f"{row['cosine_difference_mean']:.2e} ± {row['cosine_difference_std']:.2e}", axis=1
        )
        for layer, part in table.groupby("layer")
    }
    study = published.COSINE.set_index("expansion").apply(lambda row: f"{row['mean']:.2e} ± {row['std']:.2e}", axis=1)
    ours = pd.DataFrame(shown).assign(**{"the study, layer 22": study}).fillna("none")
    return ours.rename_axis("factor").reset_index().assign(factor=lambda rows: rows["factor"].map("× {}".format))


def study() -> pd.DataFrame:
    """Tabulate the published study's SAEs as printed there, a row per SAE.

    Returns the columns SAE, recon, L0 (share), FVU and total (losses and sparsity of the last training step), MWU p,
    AUC and Cliff's δ (Mann-Whitney U test over latents).
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

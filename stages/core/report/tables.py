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
    """A row per arm: accuracies of both conditions, and the gaps in accuracy and in R."""
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
    """A row per arm, region and score (energy lift, IoU): both conditions, the gap, and chance."""
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
    """A row per map method, on the original model: lift on both regions, and R as patches are hidden or shown."""
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
    """A row per edited latent.

    chosen: tests on discovery women, as `select_sae` writes them.
    cards: descriptions on confirmation women, as `describe_latents` writes them.
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
    """A row per SAE of the grid, from the table that `select_sae` writes."""
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
    """Cosine of image and prompt with the SAE minus without, over audit images, by expansion, as in the study."""
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
    """The two tables of the published study, joined."""
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
    """Versions of Python and libraries, and hashes of model and data. `metadata` is that of the chosen SAE."""
    rows = [("Python", platform.python_version()), *((name, version(name)) for name in LIBRARIES)]
    rows += [("data set, sha256", metadata["dataset_sha256"]), ("CLIP, sha256", metadata["model"])]
    return pd.DataFrame(rows, columns=["what", "version or hash"])

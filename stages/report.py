"""Everything the pipeline found -> one self-contained HTML page.

reads    metrics/, plots/ and data/selection of the earlier stages, params.yaml
writes   plots/report.html (no network needed to read it), plots/finding.png (the finding in one picture)
claims   nothing of its own: each sentence is put together from the metrics, with interval and controls
"""

from __future__ import annotations

import base64
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import imread

from stages.core import dataset, figures, params, published, results
from stages.core.dataset import CLOTHED, CONDITIONS, SEMI_NUDE

METRICS_DPATH, PLOTS_DPATH, SELECTION_DPATH = Path("metrics"), Path("plots"), Path("data/selection")
DATASET_DPATH = Path("data/dataset")
REPORT_FPATH, FINDING_FPATH = Path("plots/report.html"), Path("plots/finding.png")
TEMPLATE_FPATH = Path("stages/core/report.html.jinja")
TITLE = "Does CLIP lose a woman's face when she is semi-nude?"
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
DAG = """\
ingest ────────┬─────────────┬──────────────┬──────────────┬───────────┐
prepare_clip ──┴─► extract ──┴► train_sae ──┴► analyse_sae ┴► select_sae ─┬─► describe_latents ─┬─► report
                                (layer × expansion)                      ├─► heatmap ──────────┤
                                                                         └─► ablate ─┬─────────┤
                                                                                     └► export_clip
ingest, prepare_clip ──────────────────────────────────────────────────────► check_heatmaps ───► report"""
PICTURES = (
    "finding",
    "ablate",
    "heatmap",
    "heatmap_pairs",
    "check_heatmaps",
    "describe_latents",
    "select_sae",
    "select_sae_statistics",
    "ingest",
)
N_SHOWN = 3  # pairs beside the finding


def percent(found: dict[str, float]) -> str:
    """An accuracy with its interval."""
    return f"{100 * found['estimate']:.0f} % [{100 * found['low']:.0f}, {100 * found['high']:.0f}]"


def points(found: dict[str, float]) -> str:
    """A difference of accuracies with its interval, in percentage points."""
    return f"{100 * found['estimate']:.0f} points [{100 * found['low']:.0f}, {100 * found['high']:.0f}]"


def number(found: dict[str, float]) -> str:
    """An estimate with its interval."""
    return f"{found['estimate']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def finding(metrics: dict[str, Any], chosen: dict[str, Any], inference: params.Inference) -> str:
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


def truth(config: Any) -> str:
    """What was planted, where that is known."""
    if config.ingest.source != "synthetic" or config.clip.source != "demo":
        return ""
    return (
        f"Women are drawn and the bias is planted: with probability {config.demo.bias:g}, the captions this CLIP "
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
        card(heat["gap"], f"bust lift of heatmaps: {lifts[0]:.2f} semi-nude minus {lifts[1]:.2f} clothed"),
    ]  # fmt: skip


GAPS = {"bias": "effect on R, in nats, while those of earlier steps are edited", "perception": "activation"}
LABELS = {"colour": "the top's colour", "condition": "the garment", "emotion": "the face"}


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
    recovered = (
        f"{100 * edit['share_of_gap_recovered']:.0f} % of the gap in R" if "share_of_gap_recovered" in edit else "R"
    )
    return (
        f"R is the log-probability of the true emotion, in nats. The edit gives semi-nude women "
        f"{number(edit['semi_nude_gain'])} nats ({recovered}) and costs clothed ones {number(edit['clothed_loss'])}; "
        f"the best of {n_random_sets} random sets of like latents gives {edit['best_random_set']:.2f}. "
        "Greying the bust out changes R of semi-nude women by "
        f"{number(relied['original']['bust']['R'][SEMI_NUDE])} before the edit and by "
        f"{number(relied['edited']['bust']['R'][SEMI_NUDE])} after it; greying the face, by "
        f"{number(relied['original']['face']['R'][SEMI_NUDE])} and "
        f"{number(relied['edited']['face']['R'][SEMI_NUDE])}."
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
    if recovered and lift["original"]["low"] <= 0:
        verdict = (
            "The readout recovers from a bias of which the original heatmap shows no gap: here it is no measure of it."
        )
    elif recovered and lift["edited"]["high"] >= lift["original"]["low"]:
        verdict = (
            "The readout recovers while the heatmap gap does not shrink: here the heatmap is no measure of the bias."
        )
    elif recovered:
        verdict = "Readout and heatmap move together."
    else:
        verdict = "The readout does not recover, whatever the heatmap does."
    return (
        "Energy lift is the share of the map's mass on a region over the region's share of the picture: 1 is chance. "
        f"The bust's lift gap, semi-nude minus clothed, is {number(lift['original'])} in the original model and "
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


def methods_table(metrics: dict[str, Any]) -> pd.DataFrame:
    """Each way to draw a map of the original model: where it lies, and what hiding or showing what it marks does."""
    found = metrics["check_heatmaps"]
    rows = []
    for name, scores in found["maps"].items():
        areas = found["curves"][name]
        rows.append(
            {
                "map": name.replace("_", " "),
                **{
                    f"{region} lift, {figures.CONDITION_LABELS[c]}": f"{scores[f'{region}_energy_lift'][c]:.2f}"
                    for region in ("bust", "face")
                    for c in CONDITIONS
                },
                "bust-lift gap": number(scores["bust_energy_lift"]["gap"]),
                "deletion (nats)": f"{sum(areas[f'deletion_area_{c}'] for c in CONDITIONS) / 2:.2f}",
                "insertion (nats)": f"{sum(areas[f'insertion_area_{c}'] for c in CONDITIONS) / 2:.2f}",
            }
        )
    return pd.DataFrame(rows)


def arms_table(metrics: dict[str, Any]) -> pd.DataFrame:
    """Accuracy and R of each arm."""
    rows = []
    for arm, accuracy in metrics["ablate"]["accuracy"].items():
        r = metrics["ablate"]["R"][arm]
        rows.append(
            {
                "arm": arm.replace("_", " "),
                "accuracy, semi-nude": percent(accuracy[SEMI_NUDE]),
                "clothed": percent(accuracy[CLOTHED]),
                "gap in accuracy": points(accuracy["gap"]),
                "gap in R (nats)": number(r["gap"]),
            }
        )
    return pd.DataFrame(rows)


def lift_table(metrics: dict[str, Any]) -> pd.DataFrame:
    """Energy lift and IoU of each arm and region."""
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


def latents_table() -> pd.DataFrame:
    """The chosen latents (tests on discovery women), and what they encode (confirmation women)."""
    chosen = pd.read_csv(SELECTION_DPATH / "latents.csv")
    cards = pd.read_csv(PLOTS_DPATH / "describe_latents.csv").set_index("latent").loc[chosen["latent"]]
    gaps = chosen[["mean", "low", "high"]].to_numpy()
    return pd.DataFrame(
        {
            "latent": chosen["latent"],
            "step": chosen["step"],
            "gap": [f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in gaps],
            "p (max-T)": chosen["p_max_t"].map("{:.4f}".format),
            "activation gap": chosen["act_mean"].map("{:.3f}".format),
            "its p (max-T)": chosen["act_p_max_t"].map("{:.4f}".format),
            "fires on": chosen["firing"].map("{:.1%} of tokens".format),
            "encodes": [
                row["encodes"] if row["encodes"] == "none" else f"{row['encodes']} ({row[row['encodes']]:.0%})"
                for _, row in cards.iterrows()
            ],
            "monosemanticity": cards["monosemanticity"].map("{:.2f}".format).to_numpy(),
            "top images (discovery)": chosen["top_images"],
        }
    )


def saes_table() -> pd.DataFrame:
    """A row per SAE of the grid."""
    table = pd.read_csv(PLOTS_DPATH / "select_sae.csv")
    shown = pd.DataFrame(
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
    return shown


def cosine_table() -> pd.DataFrame:
    """Cosine of image and prompt with the SAE minus without, over audit images: a row per factor, as in the study."""
    table = pd.read_csv(PLOTS_DPATH / "select_sae.csv")
    shown = {
        f"layer {layer}": part.set_index("expansion").apply(
            lambda row: f"{row['cosine_difference_mean']:.2e} ± {row['cosine_difference_std']:.2e}", axis=1
        )
        for layer, part in table.groupby("layer")
    }
    study = published.COSINE.set_index("expansion").apply(lambda row: f"{row['mean']:.2e} ± {row['std']:.2e}", axis=1)
    ours = pd.DataFrame(shown).assign(**{"the study, layer 22": study}).fillna("none")
    return ours.rename_axis("factor").reset_index().assign(factor=lambda rows: rows["factor"].map("× {}".format))


def published_table() -> pd.DataFrame:
    """The study's two tables, joined."""
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


def provenance_table() -> pd.DataFrame:
    """Versions, and the hashes of model and data as the chosen SAE carries them."""
    metadata = results.read_json(SELECTION_DPATH / "sae" / "cfg.json")["metadata"]
    rows = [("Python", platform.python_version()), *((name, version(name)) for name in LIBRARIES)]
    rows += [("data set, sha256", metadata["dataset_sha256"]), ("CLIP, sha256", metadata["model"])]
    return pd.DataFrame(rows, columns=["what", "version or hash"])


def draw_finding(metrics: dict[str, Any], n_latents: int, with_pictures: bool) -> None:
    """What CLIP makes of the same faces: before, with the bust hidden, after the edit. This picture is committed, so
    pairs are shown beside it only where they are drawn, never photographs."""
    figure = figures.plt.figure(figsize=(10.4 if with_pictures else 6.4, 4.2))
    if with_pictures:
        left, right = figure.subfigures(1, 2, width_ratios=[1.05, 1.5])
        _draw_pairs(left.subplots(2, N_SHOWN, squeeze=False))
    else:
        right = figure.subfigures(1, 1)
    _draw_accuracies(right.subplots(), metrics, n_latents)
    figures.save(figure, FINDING_FPATH)


def _draw_pairs(axes: np.ndarray) -> None:
    data = dataset.load(DATASET_DPATH)
    pairs = data.pairs("confirmation")
    for column in range(axes.shape[1]):  # another woman and another emotion each
        of_emotion = pairs[pairs["emotion"] == data.emotions[column % len(data.emotions)]]
        pair = of_emotion.iloc[column * len(of_emotion) // axes.shape[1]]
        for row, condition in enumerate(CONDITIONS):
            figures.picture(axes[row, column], data.images(np.array([pair[condition]]))[0])
            axes[row, column].set_axis_off()
            axes[row, column].set_title(f"{figures.CONDITION_LABELS[condition]}\n{pair['emotion']}", fontsize=9)


def _draw_accuracies(ax: Axes, metrics: dict[str, Any], n_latents: int) -> None:
    ablate = metrics["ablate"]
    original, edited = ablate["accuracy"]["original"], ablate["accuracy"]["edited"]
    start = original[SEMI_NUDE]["estimate"]
    best = start + ablate["edit"]["accuracy"]["best_random_set"]
    rows = [
        ("clothed", original[CLOTHED], figures.BLUE),
        ("semi-nude", original[SEMI_NUDE], figures.VERMILION),
        ("semi-nude, bust greyed out", ablate["accuracy"]["bust_greyed"][SEMI_NUDE], figures.VERMILION),
        ("semi-nude, best random set edited", dict.fromkeys(("estimate", "low", "high"), best), figures.GREY),
        (f"semi-nude, {n_latents} bias latents edited", edited[SEMI_NUDE], figures.GREEN),
        (f"clothed, {n_latents} bias latents edited", edited[CLOTHED], figures.BLUE),
    ]
    labels, values, colours = (list(column) for column in zip(*rows, strict=True))
    figures.interval_bars(ax, labels, values, colours)
    ax.axvline(metrics["extract"]["accuracy"]["chance"], color="black", lw=0.8, ls=":")
    ax.set(xlim=(0, 1.03), xlabel="share of emotions named right (dotted: chance)", title="CLIP reads the same faces")


def embedded(fpath: Path) -> str:
    """A PNG as a data URL."""
    imread(fpath)  # a damaged picture stops here, not in the reader's browser
    return f"data:image/png;base64,{base64.b64encode(fpath.read_bytes()).decode()}"


def html(table: pd.DataFrame) -> Any:
    """A table for the page."""
    from markupsafe import Markup

    return Markup(table.to_html(index=False, border=0, justify="right"))


def main() -> None:
    config = params.load(*params.SECTIONS)
    metrics = {
        name: results.read_json(METRICS_DPATH / f"{name}.json")
        for name in ("ingest", "extract", "select_sae", "describe_latents", "heatmap", "check_heatmaps", "ablate")
    }
    chosen = results.read_json(SELECTION_DPATH / "selection.json")
    draw_finding(metrics, len(chosen["latents"]), with_pictures=config.ingest.source == "synthetic")
    pictures = {stem: embedded(PLOTS_DPATH / f"{stem}.png") for stem in PICTURES}
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        TEMPLATE_FPATH.read_text()
    )
    page = template.render(
        title=TITLE,
        finding=finding(metrics, chosen, config.inference),
        truth=truth(config),
        cards=cards(metrics),
        images=pictures,
        confidence=f"{config.inference.confidence:.0%}",
        n_saes=len(config.grid.layers) * len(config.grid.expansions),
        dag=DAG,
        arms_table=html(arms_table(metrics)),
        causal=causal(metrics, config.ablate.n_random_sets),
        embeddings=embeddings(metrics),
        heatmaps=heatmaps(metrics),
        lift_table=html(lift_table(metrics)),
        checks=checks(metrics),
        methods_table=html(methods_table(metrics)),
        selection=f"Layer {chosen['layer']}, expansion {chosen['expansion']}: {chosen['why']}.",
        smallest_p=f"{pd.read_csv(PLOTS_DPATH / 'select_sae.csv')['smallest_p'].max():.2g}",
        list_defined_by=GAPS[chosen["list"]],
        latents_table=html(latents_table()),
        described=described(metrics),
        saes_table=html(saes_table()),
        published_table=html(published_table()),
        cosine_table=html(cosine_table()),
        same_study="OpenAI's ViT-L/14 on SOBEM",
        provenance_table=html(provenance_table()),
        parameters=params.PARAMS_FPATH.read_text(),
    )
    REPORT_FPATH.write_text(page)


if __name__ == "__main__":
    main()

"""The pictures show what they are drawn from: nothing is cut off or hidden, and nothing stands for an edit not made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import ablate, describe_latents, heatmap
from stages.core import figures
from stages.core.checks import drawing
from stages.core.checks.deletion_insertion import KINDS
from stages.core.figures import Figure
from stages.core.latents.pooling import PooledLatents
from stages.core.run import params
from stages.core.schema import DescribeLatents, Inference
from stages.core.statistics import grid_drawing
from tests.imports import ROOT

INSIDE = {"estimate": 0.5, "low": 0.4, "high": 0.6}


@pytest.fixture
def kept(monkeypatch) -> list[Figure]:
    """The figures that would be saved, drawn."""
    found: list[Figure] = []

    def keep(figure: Figure, fpath: Path) -> None:
        figure.canvas.draw()
        found.append(figure)

    monkeypatch.setattr(figures, "save", keep)
    yield found
    for figure in found:
        figures.pyplot().close(figure)


def draw_checks(names: list[str]) -> None:
    keys = [(n, kind, "clothed", share, -share) for n in names for kind in KINDS for share in (0.0, 0.5, 1.0)]
    curve = pd.DataFrame(keys, columns=["method", "curve", "condition", "share", "R"])
    cascaded = pd.DataFrame({"randomised_down_to": ["nothing", "projection"], "agreement": [1.0, -0.85]})
    drawing.draw({"maps": {n: {"bust_energy_lift": {"gap": INSIDE}} for n in names}}, curve, cascaded, Path())


def test_checks_of_maps_are_drawn_without_a_cut_and_without_a_legend_over_the_curves(kept):
    draw_checks(["grad_eclip", "legrad_contrastive", "random"])
    axes, legend = kept[0].axes, kept[0].legends[0].get_window_extent()
    assert axes[3].get_ylim()[0] < -0.85
    assert all(ax.get_legend() is None and not ax.get_window_extent().overlaps(legend) for ax in axes)
    assert [text.get_text() for text in kept[0].legends[0].get_texts()] == [
        "grad eclip",
        "legrad contrastive",
        "random",
    ]


def test_more_maps_than_colours_are_drawn(kept):
    draw_checks([f"map {i}" for i in range(12)])
    assert len(kept[0].legends[0].get_texts()) == len(kept[0].axes[0].lines) == 12


def grid_of_saes(searched: int) -> pd.DataFrame:
    saes = pd.DataFrame([(layer, e) for layer in (2, 3, 4) for e in (8, 16)], columns=["layer", "expansion"])
    gain = 0.3 if searched else np.nan
    fvu = np.linspace(0.1, 0.2, len(saes))
    return saes.assign(l0=24 + 10 * fvu, train_fvu=fvu, held_out_fvu=fvu, auc=0.52, searched=searched, net_gain=gain)


def test_every_sae_has_its_expansion_and_no_dot_of_the_legend_looks_like_one(kept):
    saes = grid_of_saes(searched=1)
    grid_drawing.draw(saes, saes.iloc[0], Path())
    assert [text.get_text() for text in kept[0].axes[0].texts] == ["× 8", "× 16"] * 3
    assert all(ax.get_legend() is None for ax in kept[0].axes) and len(kept[0].axes) == 3
    assert {line.get_marker() for line in kept[0].legends[0].get_lines()} == {"None"}


def test_no_panel_of_edits_where_none_was_tried(kept):
    saes = grid_of_saes(searched=0)
    grid_drawing.draw(saes, saes.iloc[0], Path())
    assert [ax.get_title() for ax in kept[0].axes] == ["Sparsity and fidelity", "The published test"]


def outcomes() -> dict:
    both = {"semi_nude": INSIDE, "clothed": INSIDE}
    relied = {region: {"R": both} for region in ("bust", "face")}
    return {"accuracy": dict.fromkeys(ablate.SHOWN_ARMS, both), "reliance": {"original": relied, "edited": relied}}


@pytest.mark.parametrize("sizes", [[0.0], [0.0, 2.0]])
def test_without_an_edit_the_causal_test_has_no_dose_and_no_edited_model(kept, sizes):
    keys = [("n_latents", size, c, "accuracy", 0.5, 0.4, 0.6) for size in sizes for c in ("semi_nude", "clothed")]
    dose = pd.DataFrame(keys, columns=["dose", "value", "condition", "endpoint", "estimate", "low", "high"])
    ablate.draw(outcomes(), dose, pd.DataFrame({"accuracy_gain": []}), "semi_nude", Path())
    axes = kept[0].axes
    labels = [label.get_text() for ax in (axes[0], axes[-1]) for label in ax.get_yticklabels()]
    edited = len(sizes) > 1
    assert len(axes) == 2 + edited and any("edited" in label for label in labels) == edited
    if not edited:
        assert labels[:3] == ["original", "reconstructed", "noise"] and len(labels) == 7


def test_maps_of_an_edit_not_made_are_not_drawn():
    grids = dict.fromkeys(("original", "reconstructed", "edited"), np.zeros((1, 2, 2)))
    assert list(heatmap.drawn(grids, [])) == ["original", "reconstructed"]
    assert list(heatmap.drawn(grids, [3])) == list(grids)


def test_cards_of_latents_are_as_wide_as_the_page(kept, spliced):
    """The report is 992 pixels wide on a desk: text of 9 points keeps 90 % of its size there."""
    images = spliced.data.table[spliced.data.table["split"] == "confirmation"]
    ones = np.ones((len(images), 3), np.float32)
    pooled = PooledLatents(ones, ones, ones, ones, ones[0])
    embeddings = np.eye(len(images), dtype=np.float32)
    held_out = describe_latents.ConfirmationImages(images.index.to_numpy(), images, pooled, embeddings)
    card = {"latent": 1, "step": 1, "mean": 0.1, "low": 0.0, "high": 0.2, "p_max_t": 1.0, "firing": 0.1, "edited": 0}
    text = {"list": "perception", "pooling": "max", "encodes": "none", "neighbours": "2 (0.1)", "prompts": "a (0.1)"}
    table = pd.DataFrame([card | text | {"monosemanticity": 0.3}] * 2)
    inference, config = params.load(Inference, DescribeLatents, fpath=ROOT / "params.yaml")
    describe_latents.draw(spliced, table, held_out, inference, config, Path())
    assert kept[0].get_size_inches()[0] * figures.DPI * 0.9 < 992
    assert min(found.get_fontsize() for found in kept[0].findobj(lambda artist: hasattr(artist, "get_fontsize"))) >= 9
    assert kept[0].get_suptitle().startswith("No latent was edited.")

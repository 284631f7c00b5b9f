"""The stage that maps R: from maps to metrics, on a random model."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from stages import map_readout
from stages.core.latents.selection import Selection
from stages.core.latents.spliced_clip import original
from stages.core.paired import Pairs
from stages.core.readout_maps import arm_maps, drawing, latent_maps, regions
from stages.core.run import outs, params
from stages.core.run.labels import GREY
from stages.core.schema import Edit, Inference, MapReadout
from tests.imports import ROOT

CONFIG = MapReadout(
    batch_size=32,
    n_women=4,
    n_pairs=4,
    window=2,
    stride=1,
    n_steps=16,
    baselines=["grey", "blurred"],
    blur=0.1,
    n_shown=2,
)
EDIT = Edit.model_construct(kind="zero", factor=0.0, scope="all")


@pytest.fixture
def inference() -> Inference:
    return params.load(Inference, fpath=ROOT / "params.yaml").model_copy(update={"n_bootstrap": 50})


@pytest.fixture
def chosen(spliced) -> Selection:
    tests = pd.DataFrame({"mean_cls": np.zeros(64), "mean_patch": np.zeros(64)})
    edited = pd.DataFrame({"latent": [5, 9, 33]})
    return Selection(2, "semi_nude", "bias", edited, {}, tests, spliced.sae)


def test_maps_become_metrics_that_add_up(spliced, chosen, inference, tmp_path):
    """The metrics of the whole map are the means of R that the maps add up to, from a pass of the model of its own."""
    pairs = Pairs.from_images(spliced.data.table, "confirmation")
    mean = arm_maps.mean_tokens(spliced, np.arange(8))
    assert torch.allclose(mean, spliced.audit.tokens(np.arange(8)).mean(0), atol=1e-6)
    arms = {"original": original, "edited": spliced.selected_edit_arm(chosen, EDIT)}
    mapped = arm_maps.map_arms(spliced, pairs.rows, arms, mean, CONFIG)
    places, n_fitting = regions.find_places(spliced.data, pairs.rows, spliced.clip.grid)
    by_latent = latent_maps.map_latents(spliced, pairs.rows, chosen, EDIT, CONFIG)
    found = {"images": n_fitting, **map_readout.measure(mapped, places, pairs, inference)}
    found = map_readout.with_latents(found, by_latent, places, pairs, inference)

    R = dict(zip(arms, spliced.outcomes(pairs.rows, list(arms.values())).R, strict=True))
    grey = np.full_like(spliced.data.images(pairs.rows), GREY)
    hidden = dict(
        zip(arms, spliced.outcomes(pairs.rows, list(arms.values()), lambda rows: grey[: len(rows)]).R, strict=True)
    )
    semi_nude = slice(len(pairs))
    change = (R["original"] - hidden["original"])[semi_nude].mean()
    complete = found["maps"]["integrated_gradients"]["original"]["whole_sum"]["semi_nude"]["estimate"]
    assert complete == pytest.approx(change, rel=0.02, abs=1e-3)
    assert [*found["maps"]["integrated_gradients_blurred"]] == [*found["completeness"]["integrated_gradients"]]
    assert [*found["maps"]["integrated_gradients"]] == ["original"]  # no gradient sees the jumps of the edited model
    for arm in arms:
        expected = (R[arm] - hidden[arm])[semi_nude].mean()
        from_mean = found["completeness"]["integrated_gradients_tokens"][arm]
        assert from_mean["largest_gap"] < 0.02 * from_mean["mean_change"]
        players = [found["shapley"][arm][name]["semi_nude"]["estimate"] for name in ("face", "bust", "rest")]
        assert sum(players) == pytest.approx(expected, abs=1e-4)
    of_edit = found["maps"]["edited_latents"]["original"]["whole_sum"]["clothed"]["estimate"]
    at_cls = sum(part["class_token"]["clothed"]["estimate"] for part in found["latents"].values())
    change = (R["original"] - R["edited"])[len(pairs) :].mean()
    assert of_edit + at_cls == pytest.approx(change, rel=0.02, abs=1e-3)
    whole_at_cls = found["maps"]["edited_latents"]["original"]["class_token"]
    assert whole_at_cls["clothed"]["estimate"] == pytest.approx(at_cls, abs=1e-5)

    outs.write_metrics(tmp_path / "full.json", found)
    outs.write_metrics(tmp_path / "short.json", map_readout.headline(found))
    short = json.loads((tmp_path / "short.json").read_text())
    bust_sum = found["maps"]["attribution"]["edited"]["bust_sum"]
    assert short["bust_sum_gap"]["attribution"]["edited"] == pytest.approx(
        bust_sum["clothed"]["estimate"] - bust_sum["semi_nude"]["estimate"]
    )
    assert short["edited_latents_gap"]["class_token"] == whole_at_cls["gap"]["estimate"]
    grids = {name: maps.grids["occlusion"] for name, maps in mapped.items()}
    drawing.draw(spliced.data, pairs, grids, places, 2, tmp_path / "maps.png")
    with Image.open(tmp_path / "maps.png") as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    assert (colours[:, 0] > colours[:, 2] + 60).any() and (colours[:, 2] > colours[:, 0] + 60).any()  # red, and blue


def test_a_region_that_alone_carries_R_has_its_sum_and_its_control_has_none(spliced, inference):
    """A map of -1 in the patches of the bust of semi-nude images, and nothing elsewhere."""
    pairs = Pairs.from_images(spliced.data.table)
    places, n_fitting = regions.find_places(spliced.data, pairs.rows, (4, 4))
    maps = -places["bust"].astype(np.float32)
    maps[len(pairs) :] = 0
    found = map_readout.summarise_map(maps, places, pairs, inference)
    area = places["bust"][0].sum()  # whole patches: the mask is 8 x 16 pixels
    assert area == 2
    for name, expected in {"whole_sum": 2, "bust_sum": 2, "bust_control_sum": 0, "face_sum": 0}.items():
        assert found[name]["gap"]["estimate"] == pytest.approx(expected, abs=1e-6), name
    assert found["bust_harm_share"]["semi_nude"]["estimate"] == 1
    assert found["bust_control_harm_share"]["semi_nude"]["estimate"] == pytest.approx(0, abs=1e-9)
    assert found["bust_harm_share"]["clothed"]["estimate"] == pytest.approx(area / 16)
    assert n_fitting == {"bust_shape_fits_elsewhere": len(pairs.rows), "face_shape_fits_elsewhere": len(pairs.rows)}


def test_nothing_edited_is_measured_and_drawn_in_the_original_model_alone(spliced, inference, tmp_path):
    pairs = Pairs.from_images(spliced.data.table, "confirmation")
    mean = arm_maps.mean_tokens(spliced, np.arange(8))
    mapped = arm_maps.map_arms(spliced, pairs.rows, {"original": original}, mean, CONFIG)
    places, _ = regions.find_places(spliced.data, pairs.rows, spliced.clip.grid)
    found = map_readout.measure(mapped, places, pairs, inference)
    assert all([*by_arm] == ["original"] for by_arm in found["maps"].values()) and [*found["shapley"]] == ["original"]
    assert "edited_latents_gap" not in map_readout.headline({"images": {}, **found})
    drawing.draw(
        spliced.data, pairs, {"original": mapped["original"].grids["occlusion"]}, places, 2, tmp_path / "a.png"
    )
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.height > picture.width * 0.6  # two columns, of two women


def test_women_are_evenly_spaced_and_their_expressions_take_turns():
    """Five women with three pairs each: the first, third and last one, each from the expression that is next."""
    table = pd.DataFrame({"identity": np.repeat([*"abcde"], 3), "emotion": ["happy", "sad", "angry"] * 5})
    chosen = map_readout.choose_pairs(Pairs(table), 3, 1).table
    assert chosen.to_numpy().tolist() == [["a", "happy"], ["c", "sad"], ["e", "angry"]]
    both = map_readout.choose_pairs(Pairs(table), 2, 2).table
    assert both.to_numpy().tolist() == [["a", "happy"], ["a", "angry"], ["e", "happy"], ["e", "sad"]]
    assert map_readout.choose_pairs(Pairs(table), 9, 9).table.equals(table)


def test_windows_further_apart_than_their_size_are_refused():
    with pytest.raises(ValueError, match=r"stride is 3, but at most window \(2\)"):
        MapReadout(**(CONFIG.model_dump() | {"stride": 3}))

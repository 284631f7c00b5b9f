"""Which images the checks take, and how many forward passes follow."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stages import check_heatmaps
from stages.core.checks.checked_images import CheckedImages
from stages.core.paired import Pairs
from stages.core.run import params, progress
from stages.core.schema import CheckHeatmaps, Inference
from tests.imports import ROOT

SHARES = (0.0, 0.4, 1.0)


def test_the_forward_passes_that_are_announced_are_those_that_are_run(data, tiny_clip):
    """Counted where the images enter the model, and by the bar."""
    seen = []
    tiny_clip.visual.conv1.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    rows, some, again = data.rows("confirmation"), [0, 3, 5], [2, 7]
    inference = params.load(Inference, fpath=ROOT / "params.yaml").model_copy(update={"n_bootstrap": 20})
    with progress.bar("forward passes", shown=False) as bar:
        update = bar.update
        counted = []
        bar.update = lambda n: (counted.append(n), update(n))
        every, perturbed, redrawn = (
            CheckedImages(tiny_clip, data, part, 3, bar) for part in (rows, rows[some], rows[again])
        )
        grids = check_heatmaps.every_map(every, seed=0)
        assert len(grids) == check_heatmaps.N_MAPS
        curve = check_heatmaps.perturb(perturbed, {name: maps[some] for name, maps in grids.items()}, SHARES)
        reference = grids["grad_eclip"][again]
        cascaded = check_heatmaps.randomise(redrawn, reference, seed=0)
        deleted = check_heatmaps.delete_bust(every, grids, SHARES, inference)
        found = check_heatmaps.measure(redrawn, reference, curve, cascaded)
    expected = check_heatmaps.n_passes(len(rows), len(some), len(rows), len(again), tiny_clip.n_layers, len(SHARES))
    assert sum(seen) == sum(counted) == expected == 8 + 2 * 10 * 3 + 10 * 8 + 7 * 2
    assert deleted.keys() == grids.keys() == found["curves"].keys()


def test_a_part_of_the_pairs_gives_the_mean_of_that_part(data, tiny_clip, rng):
    """One pair per woman; the mean is worked out on the table."""
    rows = check_heatmaps.spread_over_women(Pairs.from_images(data.table, "confirmation"), 2)
    images = CheckedImages(tiny_clip, data, rows, 3, progress.bar("", shown=False))
    values = rng.normal(size=len(rows))
    inference = params.load(Inference, fpath=ROOT / "params.yaml")
    found = images.by_condition(values, inference)
    labels = data.table.iloc[rows].reset_index(drop=True)
    assert set(labels["identity"]) == {"w2", "w3"} and len(rows) == 4
    for condition in ("semi_nude", "clothed"):
        assert found[condition] == pytest.approx(values[labels["condition"] == condition].mean())
    assert found["gap"]["estimate"] == pytest.approx(found["clothed"] - found["semi_nude"])


def test_pairs_are_spread_over_women_and_over_their_emotions():
    """Three women of four pairs each: with three pairs, each woman shows another emotion."""
    emotions = ["happy", "sad", "angry", "calm"]
    table = pd.DataFrame({"identity": np.repeat(["a", "b", "c"], 4), "emotion": emotions * 3})
    table["semi_nude"], table["clothed"] = np.arange(12), 20 + np.arange(12)
    for n, women in ((3, [1, 1, 1]), (5, [1, 2, 2]), (12, [4, 4, 4]), (99, [4, 4, 4])):
        rows = check_heatmaps.spread_over_women(Pairs(table), n)
        chosen = table.loc[rows[rows < 12]]
        assert sorted(chosen["identity"].value_counts()) == women
        assert np.array_equal(rows[rows < 12] + 20, rows[rows >= 12]) and (np.diff(rows) > 0).all()
        assert chosen["emotion"].nunique() >= min(n, 3)


def test_images_of_one_condition_alone_draw_no_curves():
    labels = pd.DataFrame({"condition": ["clothed", "semi_nude", "clothed", "semi_nude", "clothed"]})
    assert check_heatmaps.perturbed_images(labels, 99).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(
        params.ParamsError, match=r"n_perturbed: the 3 images that it chooses are all clothed.*such as 6"
    ):
        check_heatmaps.perturbed_images(labels, 3)


@pytest.mark.parametrize("shares", [[0.0, 0.5], [0.0, 0.5, 0.9], [0.1, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0]])
def test_shares_that_do_not_run_from_none_to_all_are_refused(shares):
    given = {"n_perturbed": 6, "n_bust_pairs": 6, "n_redrawn": 4}
    assert CheckHeatmaps(**given, shares=list(SHARES))
    with pytest.raises(ValueError, match="shares"):
        CheckHeatmaps(**given, shares=shares)


def test_the_papers_setting_takes_twenty_minutes_of_vit_l_14_on_two_cores():
    """280 images, half of them of confirmation women; 24 blocks; 1.75 s per image (running.md)."""
    fpath = ROOT / "stages/studies/paper.yaml"
    config = CheckHeatmaps(**params.parse(fpath.read_text(), fpath)["check_heatmaps"])
    sizes = config.n_perturbed, 2 * config.n_bust_pairs, config.n_redrawn
    n = check_heatmaps.n_passes(140, *sizes, 24, len(config.shares))
    assert (n, 1.75 * n / 60) == (684, pytest.approx(20, abs=0.1))
    assert check_heatmaps.forecast(n, 1.75).startswith("684 forward passes of one image, about 20 min at 1.8 s each.")
    assert "about 4.0 h at" in check_heatmaps.forecast(14_400, 1.0)

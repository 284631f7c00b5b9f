"""Maps of the spliced model."""

from __future__ import annotations

import json

import numpy as np
import torch

from stages import heatmap
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.spliced_clip import original
from stages.core.paired import Pairs
from stages.core.run import params
from stages.core.schema import Inference
from tests.imports import ROOT


def test_nothing_edited_has_the_map_and_the_embedding_of_the_original_exactly(spliced):
    rows = np.arange(6)
    nothing = spliced.edit_arm(LatentEdit(latents=torch.tensor([], dtype=torch.long)), "all")
    some = spliced.edit_arm(LatentEdit(latents=torch.arange(8)), "all")
    (before, cosines), (after, same_cosines) = (heatmap.maps(spliced, rows, arm) for arm in (original, nothing))
    assert np.array_equal(before, after) and np.array_equal(cosines, same_cosines)
    assert np.array_equal(spliced.embeddings(rows), spliced.embeddings(rows, nothing))
    assert not np.array_equal(before, heatmap.maps(spliced, rows, some)[0])


def test_a_degenerate_image_counts_once_in_all_arms_and_regions(spliced):
    """Image 1 has no map in one arm, image 2 in both; image 0 has an empty bust mask."""
    rows, grids = np.arange(4), {arm: np.ones((4, 2, 2), np.float32) for arm in ("original", "edited")}
    grids["original"][1:3] = grids["edited"][2] = 0
    coverage = {region: np.zeros((4, 2, 2)) for region in ("bust", "face")}
    for region, masks in coverage.items():
        masks[:, 0] = 1
        masks[0] = region == "face" and np.eye(2)
    cosines = {arm: np.zeros(4, np.float32) for arm in grids}
    table = heatmap.score(grids, cosines, coverage, spliced.data, rows)
    inference = params.load(Inference, fpath=ROOT / "params.yaml")
    pairs = Pairs(Pairs.from_images(spliced.data.table).table.head(2))
    assert table["degenerate"].sum() == 2 + 2 * 3  # two arms of image 0, two regions of three maps
    assert heatmap.measure(table, pairs, inference)["images"] == {"degenerate": 3}


def test_a_strength_makes_a_share_of_the_edit(spliced, tmp_path):
    """At 0 the original model, at 1 the edited one; pictures and words for each pair and strength."""
    edited = spliced.edit_arm(LatentEdit(latents=torch.arange(8)), "all")
    rows = np.arange(4)
    none, half, all_of_it = (heatmap.at_strength(edited, strength)(spliced.batch(rows)) for strength in (0.0, 0.5, 1.0))
    batch = spliced.batch(rows)
    assert torch.equal(none, batch.tokens) and torch.allclose(all_of_it, edited(batch), atol=1e-5)
    assert torch.allclose(half, (none + all_of_it) / 2, atol=1e-5) and not torch.allclose(none, all_of_it, atol=1e-3)
    probable = heatmap.probabilities(spliced, rows, edited)
    assert probable.shape == (4, 2) and np.allclose(probable.sum(1), 1, atol=1e-5)
    heatmap.draw_strengths(spliced, edited, 2, tmp_path / "strengths")
    shown = json.loads((tmp_path / "strengths" / "shown.json").read_text())
    assert len(shown["pairs"]) == len(shown["says"]) == 2 and len(shown["says"][0]) == len(shown["strengths"]) == 5
    pair = heatmap.shown_images(spliced.data, 2)[0]
    before = heatmap.probabilities(spliced, pair, original)
    true = spliced.data.emotions[spliced.data.emotion_index(pair)[0]]
    own = f"{true} {100 * before[0, spliced.data.emotions.index(true)]:.0f} %"
    assert shown["says"][0][0].startswith(f"semi-nude: {own}, ")
    assert len(list((tmp_path / "strengths").glob("*.png"))) == 10

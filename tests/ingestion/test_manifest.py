"""A folder of images: every fault is found, named with its row, and nothing is written."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages.core.ingestion import manifest
from stages.core.ingestion.manifest import Limits, ManifestError

LIMITS = Limits(emotions=("happy", "sad"), max_pixels=10_000)


@pytest.fixture
def folder(tmp_path):
    """Two women x two conditions with masks, and a corpus image."""
    rng = np.random.default_rng(0)
    rows = []
    for woman in ("anna", "bea"):
        for condition in ("semi_nude", "clothed"):
            name = f"{woman}_{condition}"
            Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
            for region, box in (("bust", (20, 20, 40, 30)), ("face", (25, 2, 35, 15))):
                mask = Image.new("L", (60, 40), 0)
                mask.paste(255, box)
                mask.save(tmp_path / f"{name}_{region}.png")
            masks = {"bust_mask": f"{name}_bust.png", "face_mask": f"{name}_face.png"}
            rows.append({"image": f"{name}.png", "identity": woman, "condition": condition, "emotion": "sad", **masks})
    Image.fromarray(rng.integers(0, 255, (30, 30, 3), dtype=np.uint8)).save(tmp_path / "other.jpg")
    rows.append({"image": "other.jpg"})
    pd.DataFrame(rows).to_csv(tmp_path / "manifest.csv", index=False)
    return tmp_path


def faults(folder, change):
    table = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    table = change(table)
    table.to_csv(folder / "manifest.csv", index=False)
    with pytest.raises(ManifestError) as caught:
        manifest.read(folder, LIMITS)
    return str(caught.value)


def setting(row, column, value):
    def change(table):
        table.loc[row, column] = value
        return table

    return change


def test_a_good_folder_is_read(folder):
    table = manifest.read(folder, LIMITS)
    assert len(table) == 5
    assert manifest.is_corpus(table).tolist() == [False] * 4 + [True]
    assert {"intensity", "prompt"} <= set(table.columns)


@pytest.mark.parametrize(
    ("row", "column", "value", "says"),
    [
        (0, "image", "gone.png", "row 2: image 'gone.png' not found"),
        (1, "image", "anna_semi_nude.png", "row 3: image 'anna_semi_nude.png' stands in row 2 already"),
        (0, "image", "../outside.png", "row 2: image '../outside.png' leads out of"),
        (2, "condition", "naked", "row 4: unknown condition 'naked'; use semi_nude or clothed"),
        (2, "emotion", "bored", "row 4: unknown emotion 'bored'; ingest.emotions in params.yaml lists happy, sad"),
        (2, "identity", "cleo", "row 4: unpaired: cleo, sad has semi_nude"),
        (2, "identity", "", "row 4: identity is empty but condition is not"),
        (3, "emotion", "happy", "row 5: unpaired: bea, happy has clothed"),
        (0, "bust_mask", "", "row 2: bust_mask is empty"),
        (0, "face_mask", "other.jpg", "row 2: face_mask 'other.jpg' is 30x30 pixels, its image 60x40"),
    ],
)
def test_each_fault_is_named(folder, row, column, value, says):
    assert says in faults(folder, setting(row, column, value))


def test_a_condition_that_no_image_has_leaves_every_pair_open(folder):
    said = faults(folder, lambda table: table[table["condition"] != "clothed"])
    assert "row 2: unpaired: anna, sad has semi_nude" in said and "row 3: unpaired: bea, sad has semi_nude" in said


def test_unreadable_truncated_empty_and_huge_files(folder):
    (folder / "anna_semi_nude.png").write_text("no picture")
    whole = (folder / "anna_clothed.png").read_bytes()
    (folder / "anna_clothed.png").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (60, 40), 0).save(folder / "bea_semi_nude_bust.png")
    Image.new("RGB", (200, 200)).save(folder / "other.jpg")
    found = faults(folder, lambda table: table)
    assert "row 2: image 'anna_semi_nude.png' cannot be read" in found
    assert "row 3: image 'anna_clothed.png' is damaged or cut short" in found
    assert "row 4: bust_mask 'bea_semi_nude_bust.png' is empty; paint the bust white on black" in found
    assert "row 6: image 'other.jpg' has more than 0.01 megapixels" in found
    assert found.startswith("4 fault(s); no data set was written")


def test_the_same_picture_twice_is_a_fault(folder):
    (folder / "anna_clothed.png").write_bytes((folder / "bea_clothed.png").read_bytes())
    assert "row 5: image 'bea_clothed.png' is the same picture as row 3" in faults(folder, lambda table: table)


def test_missing_manifest_and_columns(folder):
    assert "column(s) face_mask missing" in faults(folder, lambda table: table.drop(columns="face_mask"))
    (folder / "manifest.csv").unlink()
    with pytest.raises(ManifestError, match="--scaffold"):
        manifest.read(folder, LIMITS)


def test_scaffold_rewrites_labels_and_names_masks(tmp_path):
    (tmp_path / "anna").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "anna" / "nude-joy-1.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "anna" / "notes.png")
    pattern = "{identity}/{condition}-{emotion}-{intensity}.png"
    table, unmatched = manifest.scaffold(tmp_path, pattern, {"nude": "semi_nude", "joy": "happy"})
    row = table.iloc[0]
    assert (row["identity"], row["condition"], row["emotion"], row["intensity"]) == ("anna", "semi_nude", "happy", "1")
    assert row["bust_mask"] == "masks/anna_nude-joy-1_bust.png"
    assert unmatched == ["anna/notes.png"]
    with pytest.raises(ManifestError, match="must name"):
        manifest.scaffold(tmp_path, "{identity}.png", {})

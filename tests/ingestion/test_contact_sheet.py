"""The sheet of pictures and masks: every kind of case is on it, and an inverted mask can be seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages.core import figures
from stages.core.ingestion import contact_sheet
from stages.core.run.labels import CONDITIONS


def manifest(n_women: int, emotions: list[str], n_corpus: int) -> pd.DataFrame:
    """Emotion by emotion, woman by woman, semi-nude before clothed; then the corpus."""
    rows = [(f"w{w}", c, e) for e in emotions for w in range(n_women) for c in CONDITIONS]
    table = pd.DataFrame([*rows, *[("", "", "")] * n_corpus], columns=["identity", "condition", "emotion"])
    return table.assign(intensity="", bust_mask="bust.png")


def test_every_emotion_is_shown_in_both_conditions_on_different_women_and_the_corpus():
    table = manifest(10, ["happy", "sad", "calm"], 50)
    semi_nude, clothed, corpus = contact_sheet.lines(table)
    assert [table["emotion"][row] for row in semi_nude] == ["happy"] * 2 + ["sad"] * 2 + ["calm"] * 2
    assert clothed == [row + 1 for row in semi_nude] and table["condition"][semi_nude].eq("semi_nude").all()
    assert table["identity"][semi_nude].nunique() == 6
    assert corpus == [60, 68, 76, 85, 93, 101]


def test_many_emotions_have_a_column_each_until_the_sheet_is_full():
    table = manifest(2, [f"e{i}" for i in range(15)], 0)
    semi_nude, clothed = contact_sheet.lines(table)
    assert table["emotion"][semi_nude].tolist() == [f"e{i}" for i in range(12)] and len(clothed) == 12


def test_faulty_rows_come_first_and_a_missing_twin_leaves_a_gap():
    table = manifest(1, ["happy", "sad"], 0).drop(index=1).reset_index(drop=True)
    assert contact_sheet.lines(table, [2]) == [[2], [0, 1], [None, 2]]
    assert contact_sheet.lines(manifest(0, [], 3)) == [[0, 1, 2]]


def test_the_inside_of_a_mask_has_the_colour_of_its_region():
    image = np.full((2, 2, 3), 100, np.uint8)
    bust, face = np.array([[255, 0], [0, 0]], np.uint8), np.array([[0, 255], [0, 0]], np.uint8)
    tinted = figures.tinted(image, {"bust": bust, "face": face}) * 255
    assert tinted[0, 0] == pytest.approx([0.55 * 100, 0.55 * 100 + 0.45 * 114, 0.55 * 100 + 0.45 * 178])  # 0072B2
    assert tinted[0, 1] == pytest.approx([0.55 * 100 + 0.45 * 230, 0.55 * 100 + 0.45 * 159, 0.55 * 100])  # E69F00
    assert tinted[1] == pytest.approx(100)


def test_the_sheet_shows_the_masks_and_which_picture_lacks_one(tmp_path, monkeypatch):
    """Blue of the bust is in the sheet if a bust mask is, and only then."""
    table, black = manifest(1, ["happy"], 1), np.zeros((8, 8, 3), np.uint8)
    table.loc[0, "emotion"] = table.loc[1, "emotion"] = "\u202ehappy " * 9
    titles = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_title", lambda ax, title, **style: titles.append(title))
    bust = 0.45 * np.array([0, 114, 178])
    counts = []
    for masks in ({}, {"bust": np.full((8, 8), 255, np.uint8)}):

        def glance(row, masks=masks):
            return (None, {}) if row == 2 else (black, masks)

        contact_sheet.draw(table, glance, tmp_path / "a.png", [1])
        pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"), int)
        counts.append(int((abs(pixels - bust).max(-1) <= 2).sum()))
    assert counts[0] == 0 and counts[1] > 10_000
    first, label = titles[0].splitlines()[0], titles[0].splitlines()[1]
    assert first == "row 3 (fault)" and label.startswith("clothed, ") and "\u202e" not in label and len(label) < 40
    assert titles[0].endswith("no bust and no face mask") and titles[-4].endswith("no face mask")
    assert titles[3].splitlines() == ["row 4", "corpus"]
    titles.clear()
    contact_sheet.draw(table, lambda row: (None, {}), tmp_path / "a.png")
    assert len(titles) == 3 and "mask" not in "".join(titles)

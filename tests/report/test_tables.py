"""Rows and cells of the report's tables."""

from __future__ import annotations

from stages.core.ablation.arms import ARMS
from stages.core.report import tables
from tests.report.made import maps_of_R, random_sets


def test_the_table_of_random_sets_has_a_row_per_total():
    table = tables.random_sets({"ablate": {"random_sets": random_sets(length=17.5)}}).set_index("quantity")
    row = table.loc["length of the edit at the class token"]
    assert row.tolist() == ["18", "15.75", "17.5", "19.25", "7"]
    assert table.loc["edited latents in the set", "50 % of random sets"] == "11"


def test_the_table_of_regions_has_bust_face_and_equal_areas_of_each_model():
    table = tables.region_sums(maps_of_R("original", "edited"))
    regions = ["bust", "elsewhere, area of the bust", "face", "elsewhere, area of the face"]
    assert table["region"].tolist() == 2 * regions and table["model"].tolist() == 4 * ["original"] + 4 * ["edited"]
    assert table.loc[0, "semi-nude":].tolist() == ["-1.00 [-1.10, -0.90]", "0.00 [-0.10, 0.10]", "1.00 [0.80, 1.20]"]
    assert table.loc[4, "gap"] == "0.25 [0.05, 0.45]"
    assert tables.region_sums(maps_of_R("original"))["region"].tolist() == regions


def test_arms_that_say_something_without_an_edit_are_the_same_for_table_and_figure():
    unedited = [name for name, entry in ARMS.items() if entry.without_edit]
    assert [*unedited, "bust_greyed", "face_greyed"] == list(tables.WITHOUT_EDIT)

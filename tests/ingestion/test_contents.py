"""Pictures, masks, prompts and folders that contradict what they are said to be: refused or warned of, by row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from stages.core.ingestion import faults, manifest
from stages.core.ingestion.manifest import Limits, ManifestError
from stages.core.run.labels import CONDITIONS
from tests.ingestion.folders import BOXES, LIMITS, SIZE, mask, photograph, write


@pytest.fixture
def folder(tmp_path):
    """Two women x two conditions x two emotions, with masks."""
    return write(tmp_path)


def read(folder, limits=LIMITS):
    """Warnings about a folder that is accepted."""
    warnings = []
    manifest.read(folder, limits, warnings.append)
    return [line.removeprefix(f"{folder}/manifest.csv") for line in warnings]


def refusal(folder):
    warnings = []
    with pytest.raises(ManifestError) as caught:
        manifest.read(folder, LIMITS, warnings.append)
    return str(caught.value)


def change(folder, **cells):
    """Write other cells into the manifest: column_row=value."""
    table = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    for place, value in cells.items():
        column, _, row = place.rpartition("_")
        table.loc[int(row) - 2, column] = value
    table.to_csv(folder / "manifest.csv", index=False)


def test_a_sound_folder_has_no_faults_and_no_warnings(folder):
    assert read(folder) == []


# masks


def test_an_inverted_mask_is_refused(folder):
    for region in BOXES:
        ImageOps.invert(mask(region)).save(folder / f"anna_sad_clothed_{region}.png")
    said = refusal(folder)
    for region in BOXES:
        assert f"row 3: {region}_mask 'anna_sad_clothed_{region}.png' is white in the corners of the image" in said
    assert "so it seems inverted; paint the bust white on black" in said


def test_a_bust_that_covers_most_of_the_image_is_refused_and_a_large_face_is_not(folder):
    mask(box=(0, 4, 60, 40)).save(folder / "anna_sad_clothed_bust.png")  # two corners of the image, as a torso has
    assert "row 3: bust_mask 'anna_sad_clothed_bust.png' covers 90% of the image; paint the bust alone" in refusal(
        folder
    )
    mask(box=(0, 25, 60, 40)).save(folder / "anna_sad_clothed_bust.png")
    mask(box=(10, 0, 50, 39)).save(folder / "anna_sad_clothed_face.png")
    assert read(folder) == []


def test_a_mask_that_is_white_throughout_is_refused(folder):
    mask(box=(0, 0, *SIZE)).save(folder / "bea_sad_clothed_face.png")
    assert "face_mask 'bea_sad_clothed_face.png' is white throughout; paint the face white on black" in refusal(folder)


@pytest.mark.parametrize(
    ("inside", "outside", "levels"), [(1, 0, "1 to 1"), (120, 0, "120 to 120"), (255, 140, "140 to 140")]
)
def test_a_grey_mask_is_told_from_an_empty_one(folder, inside, outside, levels):
    """The first is a label map, where 1 stands for the bust."""
    mask(inside=inside, outside=outside).save(folder / "anna_sad_clothed_bust.png")
    assert f"row 3: bust_mask 'anna_sad_clothed_bust.png' is grey (levels {levels} of 255); paint" in refusal(folder)


def test_soft_edges_are_no_grey_mask(folder):
    mask().resize((6, 4), Image.Resampling.BOX).resize(SIZE, Image.Resampling.BILINEAR).save(
        folder / "anna_sad_clothed_bust.png"
    )
    assert read(folder) == []


def test_swapped_masks_are_refused(folder):
    change(folder, bust_mask_4="bea_sad_semi_nude_face.png", face_mask_4="bea_sad_semi_nude_bust.png")
    assert "row 4: the bust lies above the face; if the masks are swapped, swap bust_mask and face_mask" in refusal(
        folder
    )


def test_one_mask_for_both_regions_is_refused(folder):
    mask("face").save(folder / "bea_sad_semi_nude_bust.png")
    assert "row 4: bust_mask and face_mask mark the same region; draw a mask for each" in refusal(folder)


def test_a_woman_who_bends_is_warned_of(folder):
    mask(box=(12, 5, 22, 18)).save(folder / "anna_sad_semi_nude_bust.png")
    mask(box=(25, 2, 35, 25)).save(folder / "anna_sad_semi_nude_face.png")
    warning = (
        ", row 2: the centre of the bust is above that of the face; check the masks, unless she is lying or bending"
    )
    assert warning in read(folder)


def test_masks_of_twins_without_a_common_point_are_warned_of(folder):
    mask(box=(40, 20, 50, 30)).save(folder / "anna_sad_clothed_bust.png")
    assert read(folder) == [
        ", row 3: the bust has no point in common with that of the twin in row 2; "
        "check that each mask belongs to its image"
    ]
    mask(box=(39, 20, 49, 30)).save(folder / "anna_sad_clothed_bust.png")  # a column of the twin's
    assert read(folder) == []


def test_half_a_face_cut_off_by_the_crop_is_refused_and_half_a_bust_warned_of(folder):
    """The crop keeps columns 10 to 50 of 60."""
    mask(box=(5, 2, 15, 15)).save(folder / "anna_sad_clothed_face.png")
    said = "row 3: the crop to the centre square cuts off 50% of the face; crop the image yourself"
    assert said in refusal(folder)
    mask(box=(6, 2, 16, 15)).save(folder / "anna_sad_clothed_face.png")
    mask(box=(0, 20, 20, 30)).save(folder / "anna_sad_clothed_bust.png")
    assert ", row 3: the crop to the centre square cuts off 50% of the bust; crop the image yourself" in read(folder)


# pictures


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_transparent_picture_is_refused(folder, mode):
    picture = photograph(9).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(SIZE))
    options = {"transparency": 0} if mode == "P" else {}
    picture.convert(mode).save(folder / "anna_sad_clothed.png", **options)
    said = "row 3: image 'anna_sad_clothed.png' has transparent pixels, which would turn black or worse"
    assert said in refusal(folder)


def test_an_opaque_alpha_channel_is_no_transparency(folder):
    photograph(9).convert("RGBA").save(folder / "anna_sad_clothed.png")
    assert read(folder) == []


@pytest.mark.parametrize("colour", [0, 255, 90])
def test_a_picture_of_one_colour_is_refused(folder, colour):
    pixels = np.full((*SIZE[::-1], 3), colour, np.uint8)
    pixels[::2] ^= 7  # such as a camera's noise
    Image.fromarray(pixels).save(folder / "bea_sad_clothed.png")
    assert "row 5: image 'bea_sad_clothed.png' is of one colour throughout (black, for instance)" in refusal(folder)
    pixels[0, 0] ^= 15
    Image.fromarray(pixels).save(folder / "bea_sad_clothed.png")
    assert read(folder) == []


# prompts


def test_one_prompt_for_two_emotions_is_refused(folder):
    change(folder, **{f"prompt_{row}": "a photo" for row in range(2, 10)})
    assert "row 6: prompt 'a photo' stands for 'happy' here and for 'sad' in row 2; a prompt must name its" in refusal(
        folder
    )


def test_twins_with_two_prompts_are_refused(folder):
    change(folder, prompt_2="a sad woman", prompt_3="a sad woman in a shirt")
    said = refusal(folder)
    assert "row 3: prompt 'a sad woman in a shirt' differs from 'a sad woman' of the twin in row 2" in said


def test_a_field_in_a_prompt_is_refused(folder):
    change(folder, prompt_2="a {emotion} woman", prompt_3="a {emotion} woman")
    assert "row 2: prompt 'a {emotion} woman' has braces; write the emotion out" in refusal(folder)


def test_prompts_that_name_the_emotion_are_read(folder):
    emotions = pd.read_csv(folder / "manifest.csv")["emotion"]
    change(folder, **{f"prompt_{row}": f"she's {emotion}" for row, emotion in enumerate(emotions, 2)})
    assert read(folder) == []


# labels


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        (
            "identity",
            "<script>run()</script>",
            "identity '<script>run()</script>' contains <, which a page takes for markup",
        ),
        ("intensity", "=1+1", "intensity '=1+1' starts with =, which a spreadsheet takes for a formula"),
        ("intensity", "-1", "intensity '-1' starts with -"),
        ("prompt", "sad \u202e", r"prompt 'sad \u202e' contains the invisible character U+202E"),
        ("emotion", "<b>", "emotion '<b>' contains <"),
    ],
)
def test_labels_that_could_act_are_refused(folder, column, value, says):
    change(folder, **{f"{column}_4": value})
    assert f"row 4: {says}" in refusal(folder)


def test_an_image_whose_name_could_act_is_refused(folder):
    name = "<img src=x onerror=run()>.png"
    (folder / "anna_sad_clothed.png").rename(folder / name)
    change(folder, image_3=name)
    assert f"row 3: image {name!r} contains <" in refusal(folder)


def test_one_woman_under_two_names_is_refused(folder):
    for row, identity in ((2, "Zoe\u0301"), (3, "Zo\u00e9"), (4, "7"), (5, "7")):
        change(folder, **{f"identity_{row}": identity})
    for row, identity in ((6, "Zo\u00e9"), (7, "Zo\u00e9"), (8, "007"), (9, "007")):
        change(folder, **{f"identity_{row}": identity})
    said = refusal(folder)
    assert "row 8: identity '007' looks like '7' in row 4; they differ only in the way a number is written" in said
    assert said.startswith("1 fault(s)")
    change(folder, identity_8="7", identity_9="7")
    assert read(folder) == []
    assert set(manifest.read(folder, LIMITS)["identity"]) == {"Zo\u00e9", "7"}


# files


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("anna_sad_clothed.PNG", "'anna_sad_clothed.png' is there, which differs in capital letters"),
        ("Anna_sad_clothed.png", "'anna_sad_clothed.png' is there, which differs in capital letters"),
        ("anna_sad_clothed.jpg", "'anna_sad_clothed.png' is there, which differs in the ending"),
        ("masks\\a.png", "'masks/a.png' is there, with slashes"),
        ("zoe\u0301.png", "'zo\u00e9.png' is there, in another Unicode form; rename the file"),
        ("anna.png", "not found in"),
    ],
)
def test_a_name_near_a_file_is_told_of_it(folder, name, says):
    (folder / "masks").mkdir()
    for other in ("masks/a.png", "zo\u00e9.png"):
        photograph(0).save(folder / other)
    change(folder, image_3=name)
    said = refusal(folder)
    assert f"row 3: image {name!r} not found in {folder}" in said and says in said
    assert ("is there" in said) == ("is there" in says)


def test_files_and_emotions_that_nobody_names_are_warned_of(folder):
    photograph(1).save(folder / "a.jpg")
    (folder / "sub").mkdir()
    photograph(2).save(folder / "sub" / "b.TIF")
    (folder / "._a.jpg").touch()
    (folder / "notes.txt").touch()
    assert read(folder, Limits(("happy", "sad", "calm"), 1e6)) == [
        f": no row names 2 image file(s) in {folder}, such as 'a.jpg'",
        ": no image has the emotion 'calm', which ingest.emotions in params.yaml lists. The readout chooses among all "
        "emotions in that list, so chance is 1 in 3, not 1 in 2; remove from it what CLIP need not tell apart",
    ]


def test_a_corpus_image_with_labels_or_masks_is_warned_of(folder):
    """Somebody forgot identity and condition of rows 2 and 3; row 10 is a corpus image as it should be."""
    photograph(99).save(folder / "other.png")
    table = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    table.loc[len(table)] = dict.fromkeys(table.columns, "") | {"image": "other.png"}
    table.to_csv(folder / "manifest.csv", index=False)
    assert read(folder) == []
    change(folder, identity_2="", condition_2="", identity_3="", condition_3="", emotion_3="", face_mask_3="")
    said = "so this is a corpus image, and its {} will not be used; fill both if the image belongs to a pair, "
    warned = [line for line in read(folder) if "this is a corpus" in line]
    assert [line.split(":")[0] for line in warned] == [", row 2", ", row 3"]
    assert said.format("emotion, bust_mask, face_mask") in warned[0] and said.format("bust_mask") in warned[1]


def test_an_emotion_that_has_prompts_in_part_is_warned_of_by_row(folder):
    """Rows 2 to 5 are sad, 6 to 9 happy. Rows 2 and 3 are twins."""
    change(folder, prompt_2="she weeps", prompt_3="she weeps")
    assert [line.split(";")[0] for line in read(folder)] == [
        f", row {row}: no prompt, but row 2 of the emotion 'sad' has 'she weeps'" for row in (4, 5)
    ]
    change(folder, prompt_4="she cries", prompt_5="she cries")
    assert read(folder) == []


@pytest.mark.parametrize(
    ("emotions", "says"),
    [
        (["joy", "glee", "joy", "glee"], "row 2: unknown emotion 'joy'; {} (and 3 more of this kind: rows 3-5; {})"),
        (["joy"] * 4, "row 2: unknown emotion 'joy'; {} (and 3 more of this kind: rows 3-5)"),
    ],
)
def test_a_line_for_many_faults_names_their_values(folder, emotions, says):
    change(folder, **{f"emotion_{row}": emotion for row, emotion in enumerate(emotions, 2)})
    listed = "ingest.emotions in params.yaml lists happy, sad"
    assert says.format(listed, "the values are 'joy', 'glee'") in refusal(folder)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("abcd", "'a', 'b', 'c', 'd'"),  # few
        ("abcdefghijkl", ""),  # each row its own: the rows tell which
        ("abcdefghijkla", "'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', ..."),
        ("aaaa", ""),
    ],
)
def test_values_are_named_if_they_say_more_than_the_rows(values, says):
    assert faults.different_values([f"unknown condition {value!r}; use 'x'" for value in values]) == says
    assert faults.different_values(["'a' 'b'", "'a'"]) == ""


def test_warnings_come_with_the_faults(folder):
    photograph(1).save(folder / "a.jpg")
    change(folder, condition_2="naked")
    warnings = []
    with pytest.raises(ManifestError):
        manifest.read(folder, LIMITS, warnings.append)
    assert len(warnings) == 1 and "no row names" in warnings[0]


def test_a_hundred_faults_of_one_kind_are_one_line(tmp_path):
    write(tmp_path, women=[f"w{woman}" for woman in range(26)])
    for fpath in tmp_path.glob("*_bust.png"):
        Image.new("L", SIZE).save(fpath)
    said = refusal(tmp_path).splitlines()
    assert len(said) == 2 and said[0].startswith(f"{26 * 2 * len(CONDITIONS)} fault(s)")
    assert (
        "row 2: bust_mask 'w0_sad_semi_nude_bust.png' is empty" in said[1]
        and "(and 103 more of this kind: rows 3-105)" in said[1]
    )

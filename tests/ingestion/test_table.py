"""manifest.csv as other programs and hands write it: each way of spoiling it has a message of its own."""

from __future__ import annotations

import pytest

from stages.core.ingestion import table
from stages.core.ingestion.faults import Faults, ManifestError, ranges

HEADER = "image,identity,condition,emotion,bust_mask,face_mask"
ROW = "a.png,anna,clothed,sad,b.png,f.png"


def written(tmp_path, text):
    fpath = tmp_path / "manifest.csv"
    fpath.write_bytes(text if isinstance(text, bytes) else text.encode())
    return fpath


def refusal(tmp_path, text):
    with pytest.raises(ManifestError) as caught:
        table.read_csv(written(tmp_path, text))
    assert str(tmp_path / "manifest.csv") in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (HEADER + ",row", "column 'row' is reserved (the stages number the images in it); remove or rename it"),
        (HEADER + ",split", "column 'split' is reserved (`ingest` assigns the splits)"),
        (HEADER + ", Pair", "column ' Pair' is reserved (`ingest` numbers the pairs)"),
        (HEADER + ",colour", "column 'colour' is reserved"),
        (HEADER + ",emotion", "column 'emotion' stands 2 times; keep one"),
        (HEADER + ",Emotion", "column 'Emotion' is 'emotion' again; keep one"),
        (
            HEADER + ",notes",
            "column 'notes' is not known; remove it (known columns: image, identity, condition, emotion",
        ),
        (HEADER + ",promt", "column 'promt' is not known; write 'prompt'"),
        (HEADER + ",", "column 7 has no name; remove it, or name it"),
        (HEADER.replace("emotion", "Emotion"), "column 'Emotion' is not known; write 'emotion'"),
        (HEADER.replace("image", " image "), "column ' image ' is not known; write 'image'"),
        (HEADER.replace("bust_mask", "Bust Mask"), "column 'Bust Mask' is not known; write 'bust_mask'"),
        (HEADER.replace(",", ";"), "the fields are separated by semicolons; separate them by commas"),
        (HEADER.replace(",", "\t"), "the fields are separated by tabs"),
        (HEADER.replace("bust_mask", "age"), "column(s) bust_mask missing; found image"),
    ],
)
def test_each_fault_of_the_header_is_named(tmp_path, header, says):
    said = refusal(tmp_path, f"{header}\n{ROW}{',x' * (header.count(',') - ROW.count(','))}\n")
    assert says in said
    if "write '" in says:
        assert "missing" not in said


def test_all_faults_of_the_header_come_together(tmp_path):
    said = refusal(tmp_path, f"{HEADER.replace('face_mask', 'Face')},row,x\n{ROW},1,2\n").splitlines()
    assert len(said) == 4 and "'Face'" in said[0] and "'row'" in said[1] and "'x'" in said[2] and "face_mask" in said[3]


def test_empty_rows_are_named_and_a_blank_line_at_the_end_is_none(tmp_path):
    assert len(table.read_csv(written(tmp_path, f"{HEADER}\n{ROW}\n\n\n"))) == 1
    said = refusal(tmp_path, f"{HEADER}\n{ROW}\n,,,,,\n , ,,,,\n,,,,,\n,,,,,\n")
    assert "row 3: the row is empty; remove it (and 3 more of this kind: rows 4-6)" in said
    assert "row 2: the row is empty" in refusal(tmp_path, f"{HEADER}\n\n{ROW}\n")


def test_rows_of_another_length_are_named(tmp_path):
    said = refusal(tmp_path, f"{HEADER}\n{ROW}\n{ROW},x\nother.png\n")
    assert "row 3: 7 fields, but the header has 6" in said and "row 4: 1 fields, but the header has 6" in said


@pytest.mark.parametrize(
    "text",
    [f"{HEADER}\n{ROW}".encode("utf-16"), f"{HEADER}\nä{ROW}".encode("latin-1"), f'{HEADER}\n"{ROW}\n'.encode()],
    ids=["UTF-16", "Latin-1", "open quote"],
)
def test_another_encoding_or_an_open_quote_is_no_csv_file(tmp_path, text):
    assert "is not a UTF-8 CSV file" in refusal(tmp_path, text)


@pytest.mark.parametrize("text", ["", "\n", f"{HEADER}\n", f"{HEADER}\n\n"])
def test_a_file_without_rows_says_so(tmp_path, text):
    assert "no rows" in refusal(tmp_path, text)


def test_labels_are_composed_and_names_of_files_are_not(tmp_path):
    decomposed = "Zoe\u0301"
    row = f"{decomposed}.png, {decomposed} ,clothed,sad,{decomposed}_b.png,f.png"
    read = table.read_csv(written(tmp_path, f"\ufeff{HEADER}\n{row}\n")).iloc[0]
    assert read["identity"] == "Zo\u00e9"
    assert read["image"] == f"{decomposed}.png" and read["bust_mask"] == f"{decomposed}_b.png"
    assert read["intensity"] == read["prompt"] == ""


@pytest.mark.parametrize("text", [f"{HEADER}\r\n{ROW}\r\n", f"{HEADER}\r{ROW}\r", f'{HEADER}\n"a\nb.png",{ROW[6:]}\n'])
def test_line_ends_of_all_systems_are_read(tmp_path, text):
    assert len(table.read_csv(written(tmp_path, text))) == 1


# many faults


def test_many_faults_of_one_kind_become_one_line_with_their_rows(tmp_path):
    faults = Faults(tmp_path / "m.csv")
    for row in (0, 1, 2, 5, 6, 9):
        faults.add(row, f"image '{row}.png' not found in raw")
    faults.add(3, "image 'x.png' is 1x900 pixels, a strip")
    faults.add(4, "image 'y.png' is 900x1 pixels, a strip")
    assert faults.lines() == [
        f"{tmp_path}/m.csv, row 2: image '0.png' not found in raw (and 5 more of this kind: rows 3-4, 7-8, 11; "
        "the values are '0.png', '1.png', '2.png', '5.png', '6.png', '9.png')",
        f"{tmp_path}/m.csv, row 5: image 'x.png' is 1x900 pixels, a strip",
        f"{tmp_path}/m.csv, row 6: image 'y.png' is 900x1 pixels, a strip",
    ]
    with pytest.raises(ManifestError, match=r"^8 fault\(s\); no data set was written"):
        faults.stop_if_any()


def test_rows_are_written_shortly():
    assert ranges([3]) == "3" and ranges([5, 3, 4, 9]) == "3-5, 9"
    assert ranges(list(range(1, 40, 2))) == "1, 3, 5, 7, 9, 11, 13, 15, ..."

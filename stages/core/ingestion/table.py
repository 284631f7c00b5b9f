"""manifest.csv as a table of text. What a spreadsheet or a hand may do to such a file has a message of its own."""

from __future__ import annotations

import csv
import difflib
import io
import unicodedata
from pathlib import Path

import pandas as pd

from stages.core.ingestion.faults import ROW_OF_FIRST_IMAGE, Faults, ManifestError

REQUIRED = ("image", "identity", "condition", "emotion", "bust_mask", "face_mask")
OPTIONAL = ("intensity", "prompt")
KNOWN = (*REQUIRED, *OPTIONAL)
KEY = ["identity", "emotion", "intensity"]  # what the two images of a pair share
FILES = ("image", "bust_mask", "face_mask")  # columns that name files, whose names stay as they are written
RESERVED = {
    "split": "`ingest` assigns the splits",
    "pair": "`ingest` numbers the pairs",
    "colour": "it is the label on which the planted world has its bias",
    "row": "the stages number the images in it",
}
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_csv(fpath: Path) -> pd.DataFrame:
    """Read a manifest as text. The content of the cells is not checked.

    Returns a row per image with all columns in KNOWN. A cell has no spaces around it; an empty cell is "". Labels and
    prompts are in Unicode's composed form (NFC), so that é is one letter however it was typed. Names of files stay as
    written, because a file system may tell the forms apart.
    Raises ManifestError if the file is no UTF-8 CSV file, if a column is missing, unknown or stands twice, and if a row
    is empty or has another number of fields than the header. The message names all such columns or rows.
    """
    header, *records = _records(fpath)
    _check_header(header, fpath)
    _check_rows(records, len(header), fpath)
    table = pd.DataFrame(records, columns=header, dtype=str)
    for name in OPTIONAL:
        if name not in table.columns:
            table[name] = ""
    table = table.apply(lambda column: column.str.strip())
    labels = [name for name in KNOWN if name not in FILES]
    table[labels] = table[labels].apply(lambda column: column.str.normalize("NFC"))
    return table


def is_corpus(table: pd.DataFrame) -> pd.Series:
    """Tell for each row of a manifest whether it is a corpus image, which may only be used to train SAEs.

    table: needs the columns identity (the woman) and condition (semi_nude or clothed). Empty cells are "".
    Returns a Boolean per row: True if the row names neither a woman nor a condition.
    """
    return (table["identity"] == "") & (table["condition"] == "")


def _records(fpath: Path) -> list[list[str]]:
    """Header and rows, each a list of its cells. Blank lines at the end are left out."""
    try:
        records = list(csv.reader(io.StringIO(fpath.read_text("utf-8-sig"), newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{fpath} is not a UTF-8 CSV file: {error}; save it as `CSV UTF-8`") from None
    while records and not records[-1]:
        records.pop()
    if len(records) < ROW_OF_FIRST_IMAGE:
        raise ManifestError(f"{fpath}: no rows")
    return records


def _check_header(header: list[str], fpath: Path) -> None:
    for separator, name in SEPARATORS.items():
        if len(header) == 1 and separator in header[0]:
            raise ManifestError(f"{fpath}: the fields are separated by {name}; separate them by commas")
    near = {name: near_match(name) for name in header if name not in KNOWN}
    faults = [_unknown(position, name, near[name], header) for position, name in enumerate(header, 1) if name in near]
    faults += [
        f"column {name!r} stands {header.count(name)} times; keep one"
        for name in dict.fromkeys(header)
        if name in KNOWN and header.count(name) > 1
    ]
    missing = [name for name in REQUIRED if name not in header and name not in near.values()]
    if missing:
        faults.append(f"column(s) {', '.join(missing)} missing; found {', '.join(header)}")
    if faults:
        raise ManifestError("\n".join(f"{fpath}: {fault}" for fault in faults))


def _unknown(position: int, name: str, near: str | None, header: list[str]) -> str:
    if not name.strip():
        return f"column {position} has no name; remove it, or name it"
    if name.strip().casefold() in RESERVED:
        return f"column {name!r} is reserved ({RESERVED[name.strip().casefold()]}); remove or rename it"
    if near in header:
        return f"column {name!r} is {near!r} again; keep one"
    meant = f"write {near!r}" if near else "remove it"
    return f"column {name!r} is not known; {meant} (known columns: {', '.join(KNOWN)})"


def near_match(name: str) -> str | None:
    """Find the column that a header probably means: it differs in capitals, in spaces, or in a few letters.

    name: the header as written. Returns one of KNOWN, or None if none is near, or if the name is a reserved one.
    """
    plain = "_".join(unicodedata.normalize("NFKC", name).casefold().replace("-", " ").split())
    if plain in RESERVED:
        return None
    return next(iter(difflib.get_close_matches(plain, KNOWN, 1, cutoff=0.8)), None)


def _check_rows(records: list[list[str]], n_columns: int, fpath: Path) -> None:
    faults = Faults(fpath)
    for row, record in enumerate(records):
        if not any(cell.strip() for cell in record):
            faults.add(row, "the row is empty; remove it")
        elif len(record) != n_columns:
            faults.add(row, f"{len(record)} fields, but the header has {n_columns}; put text with commas in quotes")
    faults.stop_if_any()

"""A sheet of pictures with their masks, on which a person can check what no rule can: is that mask the bust?"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stages.core import figures
from stages.core.ingestion.faults import ROW_OF_FIRST_IMAGE
from stages.core.ingestion.table import KEY, is_corpus
from stages.core.run import text
from stages.core.run.labels import CLOTHED, REGIONS, SEMI_NUDE

N_PAIRS = 6  # pairs to show at least, if there are as many
MOST_COLUMNS = 12  # of the sheet; it is then 23 inches wide
LONGEST = 24  # letters of a label that fit above a picture
TITLE_SIZE = 8  # points

Glance = Callable[[int], tuple[np.ndarray | None, dict[str, np.ndarray]]]
"""A function that takes a row number. It returns RGB pixels, uint8 of shape [s, s, 3], and the masks by region, uint8
of shape [s, s]. The pixels are None if the picture cannot be read. A mask that cannot be read is absent."""


def lines(table: pd.DataFrame, faulty: Sequence[int] = ()) -> list[list[int | None]]:
    """Choose the images of the sheet, so that every kind of case is seen.

    table: a row per image, with identity, condition, emotion and intensity. faulty: row numbers to show first.
    Returns the lines of the sheet, from above. Each is a list of row numbers of `table`:
        the faulty images, at most 12 (MOST_COLUMNS); no such line if there are none
        semi-nude images of as many emotions as there are columns, at least 6 (N_PAIRS) if there are as many pairs
        their clothed twins, in the same columns; None where a twin is missing
        corpus images, evenly spread; no such line if there are none
    """
    table = table.reset_index(drop=True)
    audit = table[~is_corpus(table)]
    columns = _pairs(audit)
    number = audit.groupby(KEY, sort=False).ngroup()
    twins: list[list[int | None]] = [
        [next(iter(audit.index[(number == pair) & (audit["condition"] == condition)]), None) for pair in columns]
        for condition in (SEMI_NUDE, CLOTHED)
    ]
    corpus = _spread(table.index[is_corpus(table)].to_numpy(), max(N_PAIRS, len(columns)))
    return [line for line in ([*faulty[:MOST_COLUMNS]], *twins, corpus.tolist()) if line]


def _pairs(audit: pd.DataFrame) -> list[int]:
    """Numbers of the pairs to show, in the order in which pairs first appear. Emotions are shown on different women."""
    number = audit.groupby(KEY, sort=False).ngroup()
    by_emotion = [numbers.unique() for _, numbers in number.groupby(audit["emotion"], sort=False)][:MOST_COLUMNS]
    n_each = -(-N_PAIRS // max(1, len(by_emotion)))
    return [
        pair
        for i, pairs in enumerate(by_emotion)
        for pair in _spread(pairs, n_each, shift=i / len(by_emotion)).tolist()
    ]


def _spread(values: np.ndarray, n: int, shift: float = 0) -> np.ndarray:
    """At most `n` of the values, evenly spread. shift: how far the first lies from the start, in steps, 0 to 1."""
    return values[np.unique(((np.arange(n) + shift) * len(values) / n).astype(int))] if len(values) else values


def draw(table: pd.DataFrame, glance: Glance, fpath: Path, faulty: Sequence[int] = ()) -> None:
    """Draw some images with their masks filled, each region in its colour, and write the sheet to the file `fpath`.

    table: a row per image, with identity, condition, emotion and intensity. If it has the column bust_mask, it is a
        manifest, and titles name its rows.
    glance: a function that returns the picture of a row, with its masks.
    faulty: numbers of rows that have faults. They are shown first.
    """
    shown = lines(table, faulty)
    title = "Inside of the masks, in colour"
    figure, axes = figures.grid(len(shown), max(map(len, shown)), title, cell=(1.9, 2.4))
    for line, axes_of_line in zip(shown, axes, strict=True):
        for row, ax in zip(line, axes_of_line, strict=False):
            if row is not None:
                _draw_image(ax, table, row, glance, row in faulty)
    figures.region_legend(figure)
    figures.save(figure, fpath)


def _draw_image(ax: figures.Axes, table: pd.DataFrame, row: int, glance: Glance, is_faulty: bool) -> None:
    pixels, masks = glance(row)
    corpus = is_corpus(table).iloc[row]
    absent = [region for region in REGIONS if region not in masks and pixels is not None and not corpus]
    place = f"row {row + ROW_OF_FIRST_IMAGE}{' (fault)' if is_faulty else ''}" if "bust_mask" in table else ""
    labels = ["corpus"] if corpus else [table["condition"].iloc[row].replace("_", "-"), table["emotion"].iloc[row]]
    parts = [place, ", ".join(map(_short, labels)), f"no {' and no '.join(absent)} mask" if absent else ""]
    ax.set_title("\n".join(part for part in parts if part), fontsize=TITLE_SIZE)
    if pixels is None:
        ax.text(0.5, 0.5, "cannot be read", ha="center", transform=ax.transAxes)
    else:
        figures.masked_picture(ax, pixels, masks)


def _short(label: str) -> str:
    return textwrap.shorten(label if text.fault(label) is None else ascii(label), LONGEST, placeholder="...")

"""Faults of a manifest, collected so that one run reports them together. Many faults of one kind become one line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from stages.core.run.errors import StudyError

ROW_OF_FIRST_IMAGE = 2  # spreadsheets count the header as row 1
N_EACH = 3  # faults of one kind that have a line each
N_RANGES = 8  # runs of rows that a line names
VALUES = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[\d.,]*\d")  # what differs between faults of one kind


class ManifestError(StudyError):
    """The folder cannot be used. The message lists every fault found, each with its file and row."""


@dataclass
class Faults:
    """All faults (or warnings) that were found in a manifest and its files.

    fpath: the manifest, whose path starts each line.
    found: a fault each: its row (None for the whole file), what is wrong, and its kind.
    """

    fpath: Path
    found: list[tuple[int | None, str, str]] = field(default_factory=list)

    def add(self, row: int | None, what: str, kind: str = "") -> None:
        """Add a fault.

        row: number of the row, from 0 for the first image; None for the whole file. The message counts rows as
            spreadsheets do.
        what: what is wrong and what to do.
        kind: faults of one kind share a line if there are many. By default, two faults are of one kind if they differ
            only in numbers and in quoted text.
        """
        self.found.append((row, what, kind or VALUES.sub("_", what)))

    def lines(self) -> list[str]:
        """Return the faults, a line each. If more than three are of one kind, the first gets a line, with all rows."""
        kinds: dict[str, list[tuple[int | None, str]]] = {}
        for row, what, kind in self.found:
            kinds.setdefault(kind, []).append((row, what))
        return [line for faults in kinds.values() for line in self._lines_of_a_kind(faults)]

    def _lines_of_a_kind(self, faults: list[tuple[int | None, str]]) -> list[str]:
        shown = faults if len(faults) <= N_EACH else faults[:1]
        lines = [f"{self._place(row)}: {what}" for row, what in shown]
        if len(shown) < len(faults):
            others = ranges([row + ROW_OF_FIRST_IMAGE for row, _ in faults[1:] if row is not None])
            lines[0] += f" (and {len(faults) - 1} more of this kind{others and f': rows {others}'})"
        return lines

    def _place(self, row: int | None) -> str:
        return f"{self.fpath}" if row is None else f"{self.fpath}, row {row + ROW_OF_FIRST_IMAGE}"

    def stop_if_any(self) -> None:
        """Raise ManifestError with all faults, if there are any."""
        if self.found:
            raise ManifestError("\n".join([f"{len(self.found)} fault(s); nothing was written", *self.lines()]))


def ranges(rows: list[int]) -> str:
    """Write row numbers shortly: 3, 5-9, 12. After eight runs of consecutive rows, the rest is cut off ("...")."""
    numbered = enumerate(sorted(set(rows)))
    runs = [[row for _, row in run] for _, run in groupby(numbered, lambda pair: pair[1] - pair[0])]
    written = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return ", ".join([*written[:N_RANGES], *(["..."] if len(written) > N_RANGES else [])])

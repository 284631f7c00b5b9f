"""Faults of a manifest, collected so that one run reports them together. Many faults of one kind become one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from stages.core.run.errors import StudyError

ROW_OF_FIRST_IMAGE = 2  # spreadsheets count the header as row 1
N_EACH = 3  # faults of one kind that have a line each
N_RANGES = 8  # runs of rows that a line names
N_VALUES = 8  # different values that a line names
QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
VALUES = re.compile(rf"{QUOTED.pattern}|[\d.,]*\d")  # what differs between faults of one kind


class ManifestError(StudyError):
    """The folder cannot be used. The message lists every fault found, each with its file and row.

    rows: an example of each kind of fault: the number of its row, from 0 for the first image, ascending.
    """

    def __init__(self, message: str, rows: Sequence[int] = ()):
        super().__init__(message)
        self.rows = sorted(set(rows))


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
        """Return the faults, a line each.

        If more than three are of one kind, the first gets a line. This line also has the number of the others, their
        rows, and the values that are at fault.
        """
        return [line for faults in self._kinds() for line in self._lines_of_a_kind(faults)]

    def _kinds(self) -> list[list[tuple[int | None, str]]]:
        kinds: dict[str, list[tuple[int | None, str]]] = {}
        for row, what, kind in self.found:
            kinds.setdefault(kind, []).append((row, what))
        return list(kinds.values())

    def _lines_of_a_kind(self, faults: list[tuple[int | None, str]]) -> list[str]:
        shown = faults if len(faults) <= N_EACH else faults[:1]
        lines = [f"{self._place(row)}: {what}" for row, what in shown]
        if len(shown) < len(faults):
            others = ranges([row + ROW_OF_FIRST_IMAGE for row, _ in faults[1:] if row is not None])
            values = different_values([what for _, what in faults])
            lines[0] += (
                f" (and {len(faults) - 1} more of this kind{others and f': rows {others}'}"
                f"{values and f'; the values are {values}'})"
            )
        return lines

    def _place(self, row: int | None) -> str:
        return f"{self.fpath}" if row is None else f"{self.fpath}, row {row + ROW_OF_FIRST_IMAGE}"

    def stop_if_any(self) -> None:
        """Raise ManifestError with all faults, if there are any."""
        if self.found:
            rows = [row for faults in self._kinds() for row, _ in faults[:1] if row is not None]
            raise ManifestError(
                "\n".join([f"{len(self.found)} fault(s); no data set was written", *self.lines()]), rows
            )


def different_values(sentences: list[str]) -> str:
    """Write the quoted values in which sentences of one kind differ first: 'joy', 'anger'.

    sentences: they have the same number of quoted values, or none is written.
    Returns at most eight values (N_VALUES), each once, and "..." if there are more. Returns "" if no value differs, or
    if there are more than eight sentences, each with a value of its own, such as the name of a file: then the rows tell
    which.
    """
    quoted = [QUOTED.findall(sentence) for sentence in sentences]
    if len({len(values) for values in quoted}) > 1:
        return ""
    differing = [found for values in zip(*quoted, strict=True) if len(found := list(dict.fromkeys(values))) > 1]
    if not differing or len(differing[0]) == len(sentences) > N_VALUES:
        return ""
    return ", ".join([*differing[0][:N_VALUES], *(["..."] if len(differing[0]) > N_VALUES else [])])


def ranges(rows: list[int]) -> str:
    """Write row numbers shortly: 3, 5-9, 12. After eight runs of consecutive rows, the rest is cut off ("...")."""
    numbered = enumerate(sorted(set(rows)))
    runs = [[row for _, row in run] for _, run in groupby(numbered, lambda pair: pair[1] - pair[0])]
    written = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return ", ".join([*written[:N_RANGES], *(["..."] if len(written) > N_RANGES else [])])

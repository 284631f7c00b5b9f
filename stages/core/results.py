"""What a stage leaves for people and for `dvc metrics`, `dvc plots`: nested numbers, and tables."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from stages.core import outs


def write_metrics(fpath: Path, metrics: dict[str, Any]) -> None:
    """Write nested numbers as JSON.

    Raises ValueError for anything DVC would drop without a word (lists, nulls, text) or that JSON does not know (NaN).
    """
    _check(metrics, fpath.stem)
    with outs.whole(fpath) as unfinished:
        unfinished.write_text(json.dumps(metrics, indent=2) + "\n")


def read_json(fpath: Path) -> dict[str, Any]:
    """Read a metrics file, or another JSON object."""
    return json.loads(fpath.read_text())


def write_table(fpath: Path, table: pd.DataFrame) -> None:
    """Write a tidy CSV without an index."""
    with outs.whole(fpath) as unfinished:
        table.to_csv(unfinished, index=False)


def _check(value: Any, key: str) -> None:
    if isinstance(value, dict):
        for name, part in value.items():
            _check(part, f"{key}.{name}")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"metric {key} is {type(value).__name__}, not a number")
    elif not math.isfinite(value):
        raise ValueError(f"metric {key} is {value}")

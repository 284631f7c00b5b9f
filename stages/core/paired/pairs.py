"""Matched pairs, and the gap between the twins of a pair: the clothed value minus the semi-nude value, everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from stages.core.paired.bootstrap import Interval, bootstrap_settings, interval
from stages.core.run.labels import CLOTHED, CONDITIONS, SEMI_NUDE
from stages.core.schema import Inference

Value = TypeVar("Value", float, np.ndarray)


def gap(by_condition: Mapping[str, Value]) -> Value:
    """The clothed value minus the semi-nude value."""
    return by_condition[CLOTHED] - by_condition[SEMI_NUDE]


@dataclass(frozen=True)
class Pairs:
    """Matched pairs of one split of women, or of all women. Row numbers count images of the data set."""

    table: pd.DataFrame
    """A row per pair: pair, identity, emotion, split, and the row number of each condition's image."""

    @classmethod
    def from_images(cls, images: pd.DataFrame, split: str | None = None) -> Pairs:
        """Match the images of a data set's table. `split` keeps the pairs of one split of women.

        images: columns pair (-1 for an image without a twin), identity, emotion, split, condition.
        """
        audit = images[images["pair"] >= 0]
        wide = audit.reset_index(names="row").pivot(index="pair", columns="condition", values="row")
        described = audit.groupby("pair")[["identity", "emotion", "split"]].first()
        table = described.join(wide).reset_index()
        return cls(table if split is None else table[table["split"] == split].reset_index(drop=True))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def women(self) -> np.ndarray:
        """The woman of each pair [pair]."""
        return self.table["identity"].to_numpy()

    @property
    def n_women(self) -> int:
        """The number of different women."""
        return int(self.table["identity"].nunique())

    @property
    def semi_nude(self) -> Int[np.ndarray, " pair"]:
        """Row numbers of the semi-nude images."""
        return self.table[SEMI_NUDE].to_numpy()

    @property
    def clothed(self) -> Int[np.ndarray, " pair"]:
        """Row numbers of the clothed images."""
        return self.table[CLOTHED].to_numpy()

    @property
    def rows(self) -> Int[np.ndarray, " image"]:
        """Row numbers of all images: the semi-nude ones, then the clothed ones, each pair by pair."""
        return np.concatenate([self.table[condition].to_numpy() for condition in CONDITIONS])

    def positions(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " image"]:
        """Where the images of `self.rows` stand in `rows` (ascending row numbers)."""
        return np.searchsorted(rows, self.rows)

    def split(self, values: np.ndarray, axis: int = -1) -> dict[str, np.ndarray]:
        """Split values of the images in `rows` by condition: the image axis becomes a pair axis."""
        return dict(zip(CONDITIONS, np.split(values, len(CONDITIONS), axis), strict=True))

    def gap(self, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """Clothed minus semi-nude twin, pair by pair, of values of the images in `rows`."""
        return gap(self.split(values, axis))

    def interval(self, values: Float[np.ndarray, " pair"], inference: Inference) -> Interval:
        """Mean over pairs, with its bootstrap interval over women."""
        return interval(values, self.women, **bootstrap_settings(inference))

    def summary(self, values: Float[np.ndarray, " image"], inference: Inference) -> dict[str, dict[str, float]]:
        """Means of both conditions and of the gap, each with its interval, for a metrics file."""
        shown = {**self.split(values), "gap": self.gap(values)}
        return {label: self.interval(numbers, inference).as_metrics() for label, numbers in shown.items()}

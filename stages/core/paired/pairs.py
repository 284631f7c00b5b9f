"""Matched pairs, and the gap between the twins of a pair: the clothed value minus the semi-nude value, everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from stages.core.paired.bootstrap import Interval, bootstrap_settings, interval
from stages.core.paired.bounded import Bounds, difference_bounds
from stages.core.run.labels import CLOTHED, CONDITIONS, OTHER_CONDITION, SEMI_NUDE
from stages.core.schema import Inference

Value = TypeVar("Value", float, np.ndarray)


def gap(by_condition: Mapping[str, Value], losing: str = SEMI_NUDE) -> Value:
    """Compute the gap: the value in the other condition minus the value in the losing one.

    by_condition: keys `clothed` and `semi_nude`; two numbers, or two arrays of one shape.
    losing: the condition that is subtracted. By default the gap is clothed minus semi-nude.
    """
    return by_condition[OTHER_CONDITION[losing]] - by_condition[losing]


@dataclass(frozen=True)
class Pairs:
    """Matched pairs: two images of one woman with one expression, one semi-nude and one clothed, called twins.

    The table holds the pairs of one split of women, or of all women. A row number is the place of an image in the data
    set's table.
    """

    table: pd.DataFrame
    """A row per pair, with columns pair (its number), identity (the woman), emotion, split, semi_nude and clothed. The
    last two hold the row number of the image in that condition."""

    @classmethod
    def from_images(cls, images: pd.DataFrame, split: str | None = None) -> Pairs:
        """Match the images of a data set's table into pairs.

        images: a row per image; the index holds the row numbers. Columns:
            pair         number that the two twins of a pair share; -1 for an image without a twin
            identity     the woman
            emotion      the emotion of the face
            split        discovery (women used for choosing) or confirmation (women held out)
            condition    semi_nude or clothed
        split: the split whose pairs are kept; all pairs if not given.
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
        """Name of the woman of each pair: an array with one name per pair."""
        return self.table["identity"].to_numpy()

    @property
    def n_women(self) -> int:
        """Number of different women in the pairs."""
        return int(self.table["identity"].nunique())

    @property
    def semi_nude(self) -> Int[np.ndarray, " pair"]:
        """Row number, in the data set's table, of the semi-nude image of each pair."""
        return self.table[SEMI_NUDE].to_numpy()

    @property
    def clothed(self) -> Int[np.ndarray, " pair"]:
        """Row number, in the data set's table, of the clothed image of each pair."""
        return self.table[CLOTHED].to_numpy()

    @property
    def rows(self) -> Int[np.ndarray, " image"]:
        """Row numbers, in the data set's table, of all images: first all semi-nude images, then all clothed images.

        Both halves are in the order of the pairs.
        """
        return np.concatenate([self.table[condition].to_numpy() for condition in CONDITIONS])

    def positions(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " image"]:
        """Find the images of these pairs in an array of row numbers.

        rows: ascending row numbers of images in the data set's table. They must include all of `self.rows`.
        Returns the position in `rows` of each image of `self.rows`.
        """
        return np.searchsorted(rows, self.rows)

    def split(self, values: np.ndarray, axis: int = -1) -> dict[str, np.ndarray]:
        """Split an array of values of images by condition.

        values: an array whose axis `axis` is the image, in the order of `self.rows`.
        Returns the keys `semi_nude` and `clothed`. Each holds an array in which this axis is the pair.
        """
        return dict(zip(CONDITIONS, np.split(values, len(CONDITIONS), axis), strict=True))

    def gap(self, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """Compute the gap of each pair: the clothed value minus the semi-nude value.

        values: an array whose axis `axis` is the image, in the order of `self.rows`.
        Returns an array in which this axis is the pair.
        """
        return gap(self.split(values, axis))

    def interval(
        self, values: Float[np.ndarray, " pair"], inference: Inference, bounds: Bounds | None = None
    ) -> Interval:
        """Compute the mean over pairs, with its interval over women (`paired.interval`).

        values: one value per pair.
        inference: gives the number of resamples, the confidence level and the seed.
        bounds: the smallest and the largest possible value, if there are any.
        """
        return interval(values, self.women, bounds=bounds, **bootstrap_settings(inference))

    def summary(
        self, values: Float[np.ndarray, " image"], inference: Inference, bounds: Bounds | None = None
    ) -> dict[str, dict[str, float]]:
        """Compute the mean of each condition, and the mean gap (clothed minus semi-nude), with intervals over women.

        values: one value for each image of `self.rows`, in that order.
        inference: gives the number of resamples, the confidence level and the seed.
        bounds: the smallest and the largest possible value of an image, if there are any.
        Returns the keys semi_nude, clothed and gap. Each holds a dictionary with estimate, low and high.
        """
        shown = {label: self.interval(part, inference, bounds) for label, part in self.split(values).items()}
        shown["gap"] = self.interval(self.gap(values), inference, difference_bounds(bounds))
        return {label: found.as_metrics() for label, found in shown.items()}

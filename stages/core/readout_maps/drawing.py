"""The figure of the stage `map_readout`: signed maps over the pictures of both twins of some women."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.core import figures
from stages.core.data.choice import evenly
from stages.core.data.dataset import Dataset
from stages.core.paired import Pairs
from stages.core.readout_maps.regions import Grids
from stages.core.run.labels import CONDITIONS, REGIONS


def draw(
    data: Dataset, pairs: Pairs, grids: dict[str, Grids], places: dict[str, Grids], n_women: int, fpath: Path
) -> None:
    """Draw the maps of both twins of some women, a row per woman, in one scale of colours. Write the sheet to `fpath`.

    data: the data set, with pictures and masks. pairs: the pairs whose maps are given.
    grids: maps [image, gh, gw] of the images of `pairs.rows`, by arm. places: coverage of bust and face.
    n_women: number of women to draw, evenly spaced among all. The first pair of each is drawn.
    """
    first = np.flatnonzero(~pairs.table["identity"].duplicated().to_numpy())
    shown = first[evenly(len(first), n_women)]
    at = {condition: shown + i * len(pairs) for i, condition in enumerate(CONDITIONS)}
    limit = max(float(np.abs(maps[np.concatenate([*at.values()])]).max()) for maps in grids.values())
    columns = [(condition, arm) for condition in CONDITIONS for arm in grids]
    title = "Where the picture raises R (blue) and lowers it (red); bust solid, face dashed; sums in nats"
    figure, axes = figures.grid(len(shown), len(columns), title, cell=(2.2, 2.6))
    for r in range(len(shown)):
        for ax, (condition, arm) in zip(axes[r], columns, strict=True):
            i = at[condition][r]
            row, heat = pairs.rows[i : i + 1], grids[arm][i]
            bust, face = (data.mask(region, row)[0] for region in ("bust", "face"))
            colours = figures.signed_overlay(ax, data.images(row)[0], heat, limit, bust=bust, face=face)
            sums = {region: float((heat * places[region][i]).sum()) for region in REGIONS}
            written = ", ".join(f"{region} {round(value, 2) + 0.0:+.2f}" for region, value in sums.items())  # no -0.00
            ax.set_title(f"{figures.CONDITION_LABELS[condition]}, {arm}\n{written}", fontsize=8.5)
    figure.colorbar(colours, ax=axes, shrink=0.6, label="nats per patch")
    figures.save(figure, fpath)

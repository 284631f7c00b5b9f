"""The style of all figures, with colours that a colour-blind reader can tell apart, and the shared ways to draw."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from stages.core.run import outs
from stages.core.run.labels import CLOTHED, SEMI_NUDE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:
    Axes = Figure = Any

# palette of Okabe & Ito, distinct under every common colour blindness
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#767676",
)
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
CONDITION_COLOURS = {SEMI_NUDE: VERMILION, CLOTHED: BLUE}
CONDITION_LABELS = {SEMI_NUDE: "semi-nude", CLOTHED: "clothed"}
DPI = 110
REGION_COLOURS = {"bust": BLUE, "face": ORANGE}
EDGE = 127.5  # value of a mask at the edge of its region: half of a pixel inside
PALE = (0.35, 0.9)  # where black and white of a picture under a map are drawn, from 0 to 1: a map stands out on it
TINT = 0.45  # share of a region's colour in the pixels inside its mask
OPAQUE = 0.2  # share of the limit of a signed map from which its colour hides the picture: the colour tells the value
FADED = 0.3  # share of an image's colour that is left where the latent is not active

STYLE: dict[Any, Any] = {
    "figure.dpi": DPI,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar sign in a label or a file name is a dollar sign
}


@cache
def pyplot() -> Any:
    """Import Matplotlib's pyplot, set to the style of this module, and return it.

    The import takes a third of a second, so it waits for the first figure.
    """
    os.environ["MPLBACKEND"] = "Agg"  # another value of the user's may stop the import
    import matplotlib

    matplotlib.use("Agg")  # where it is imported already
    import matplotlib.pyplot as plt

    plt.rcParams.update(STYLE)
    return plt


def grid(rows: int, columns: int, title: str, *, cell: tuple[float, float] = (1.9, 2.1)) -> tuple[Figure, np.ndarray]:
    """Create a figure for pictures in a grid of `rows` rows and `columns` columns.

    title: text above the whole figure. cell: width and height of one picture, inches.
    Returns the figure, and an array [rows, columns] of axes without ticks and frames.
    """
    figure, axes = pyplot().subplots(rows, columns, figsize=(columns * cell[0], rows * cell[1] + 0.4), squeeze=False)
    figure.suptitle(title)
    for ax in axes.flat:
        ax.set_axis_off()
    return figure, axes


def panels(
    columns: int, title: str = "", *, rows: int = 1, cell: tuple[float, float] = (4.4, 3.4)
) -> tuple[Figure, np.ndarray]:
    """Create a figure for plots side by side.

    columns: number of plots in a row. rows: number of rows. title: text above the whole figure, if any.
    cell: width and height of one plot, inches.
    Returns the figure and an array [rows, columns] of axes.
    """
    figure, axes = pyplot().subplots(rows, columns, figsize=(columns * cell[0], rows * cell[1]), squeeze=False)
    if title:
        figure.suptitle(title)
    return figure, axes


def picture(ax: Axes, image: np.ndarray, *, bust: np.ndarray | None = None) -> None:
    """Draw an image, with an outline around the bust.

    ax: the axes to draw into. image: RGB pixels.
    bust: mask of the size of the image, 255 inside and 0 outside. If it is not given, there is no outline.
    """
    ax.imshow(image, interpolation="nearest")
    if bust is not None:
        _outline(ax, bust)


def _outline(ax: Axes, mask: np.ndarray) -> None:
    ax.contour(mask, levels=[EDGE], colors="white", linewidths=2.6)
    ax.contour(mask, levels=[EDGE], colors="black", linewidths=1.2)


def masked_picture(ax: Axes, image: np.ndarray, masks: dict[str, np.ndarray]) -> None:
    """Draw an image whose masks are filled with colour (`tinted`) and outlined, for clothes of the same colour.

    ax: the axes to draw into. image and masks: as for `tinted`.
    """
    ax.imshow(tinted(image, masks), interpolation="nearest")
    for mask in masks.values():
        if mask.min() < 128 <= mask.max():
            _outline(ax, mask)


def tinted(image: np.ndarray, masks: dict[str, np.ndarray]) -> Float[np.ndarray, "height width 3"]:
    """Mix the colour of each region into the pixels inside its mask, so that inside and outside can be told apart.

    image: RGB pixels, 0 to 255. masks: by region (a key of REGION_COLOURS), of the size of the image, 255 inside and 0
        outside.
    Returns RGB pixels, 0 to 1: inside a mask, 45 % (TINT) of the region's colour and the rest of the image.
    """
    mixed = image / 255
    for region, mask in masks.items():
        share = TINT * mask[..., None] / 255
        colour = np.frombuffer(bytes.fromhex(REGION_COLOURS[region][1:]), np.uint8) / 255
        mixed = (1 - share) * mixed + share * colour
    return mixed


def region_legend(figure: Figure) -> None:
    """Write below the pictures which colour `tinted` gives to which region."""
    from matplotlib.patches import Patch

    patches = [Patch(color=colour, alpha=TINT, label=f"{region} mask") for region, colour in REGION_COLOURS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches))


def line_legend(figure: Figure, lines: dict[str, dict[str, Any]], columns: int = 4) -> None:
    """Write below the panels which line means what: a piece of each line without a dot, away from the data.

    lines: the options of each line (colour, style), by its label. columns: number of labels in a row.
    """
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], lw=2, label=label, **options) for label, options in lines.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)))


def _pale_picture(ax: Axes, image: np.ndarray) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """Draw a square RGB image in pale greys. Returns the place of a map over it, and the middles of its pixels."""
    size, (black, white) = image.shape[0], PALE
    grey = np.repeat(image.mean(-1, keepdims=True), 3, axis=-1) / 255
    place = (0, size, size, 0)
    ax.imshow(black + (white - black) * grey, interpolation="nearest", extent=place)
    return place, np.arange(size) + 0.5


def overlay(ax: Axes, image: np.ndarray, heat: np.ndarray, *, bust: np.ndarray | None = None) -> None:
    """Draw a heatmap over a grey version of an image.

    ax: the axes to draw into. image: RGB pixels of a square image, 0 to 255.
    heat: one value per patch, [rows of patches, columns of patches]. Negative values are drawn as 0. The greatest value
        is drawn as 1.
    bust: mask of the size of the image, 255 inside and 0 outside, whose outline is drawn if given.
    """
    place, middles = _pale_picture(ax, image)
    positive = np.maximum(heat, 0)
    scaled = positive / positive.max() if positive.max() > 0 else positive
    opaque = 0.25 + 0.6 * scaled  # a patch without relevance is dark, and the picture can be seen under each
    ax.imshow(scaled, cmap="magma", alpha=opaque, vmin=0, vmax=1, extent=place)
    if bust is not None:
        ax.contour(middles, middles, bust, levels=[EDGE], colors="white", linewidths=1.4)


def signed_overlay(
    ax: Axes, image: np.ndarray, heat: np.ndarray, limit: float, *, bust: np.ndarray, face: np.ndarray
) -> Any:
    """Draw a signed heatmap over a grey version of an image: blue above 0, red below, clear at 0.

    ax: the axes to draw into. image: RGB pixels of a square image, 0 to 255.
    heat: one value per patch, [rows of patches, columns of patches].
    limit: the absolute value that gets the full colour. Maps that share it can be compared.
    bust, face: masks of the size of the image, 255 inside and 0 outside. The bust has a solid outline, the face a
        dashed one.
    Returns the scale of colours, for a colour bar.
    """
    place, middles = _pale_picture(ax, image)
    limit = limit or 1.0  # maps of zeros have a scale, too
    opaque = 0.9 * np.minimum(np.abs(heat) / (OPAQUE * limit), 1)
    ax.imshow(heat, cmap="RdBu", vmin=-limit, vmax=limit, alpha=opaque, extent=place)
    for mask, style in ((bust, "-"), (face, "--")):
        ax.contour(middles, middles, mask, levels=[EDGE], colors="black", linewidths=1.2, linestyles=style)
    return pyplot().cm.ScalarMappable(pyplot().Normalize(-limit, limit), "RdBu")


def spotlight(ax: Axes, image: np.ndarray, activation: np.ndarray) -> None:
    """Draw an image in its own colours where a latent is active, and faded to white elsewhere.

    ax: the axes to draw into. image: RGB pixels, 0 to 255.
    activation: activation of the latent on each patch, [rows of patches, columns of patches]. The patch with the
        greatest activation keeps its colours.
    """
    scaled = activation / activation.max() if activation.max() > 0 else activation
    factors = [side // patches for side, patches in zip(image.shape[:2], activation.shape, strict=True)]
    light = FADED + (1 - FADED) * np.kron(scaled, np.ones(factors))[..., None]
    ax.imshow(light * image / 255 + 1 - light, interpolation="nearest")


def interval_bars(ax: Axes, labels: list[str], rows: list[dict[str, float]], colours: list[str]) -> None:
    """Draw estimates as dots with horizontal intervals, one line per estimate, in the given order from the top.

    ax: the axes to draw into. labels: text at the left of each line.
    rows: a dictionary per line with estimate, low and high, in the units of the horizontal axis.
    colours: colour of each line.
    """
    for y, (row, colour) in enumerate(zip(rows, colours, strict=True)):
        ax.plot([row["low"], row["high"]], [y, y], color=colour, lw=2.4, solid_capstyle="butt")
        ax.plot(row["estimate"], y, "o", color=colour, ms=6)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.5)


def save(figure: Figure, fpath: Path) -> None:
    """Write `figure` to the file `fpath` as a PNG, the same to the byte for the same data, and close the figure."""
    with outs.atomic_output(fpath) as unfinished:
        figure.savefig(unfinished, metadata={"Software": None})
    pyplot().close(figure)

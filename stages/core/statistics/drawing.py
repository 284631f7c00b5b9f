"""The figure of one SAE's statistics (statistics.png), in six panels."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stages.core import figures, paired
from stages.core.figures import Axes, Figure
from stages.core.run.labels import CONDITIONS
from stages.core.run.params import Point
from stages.core.schema import LatentList

LOG_FLOOR = 1e-6  # keeps the logarithm of a silent latent finite


def draw_activations(axes: np.ndarray, values: np.ndarray, condition: np.ndarray, n_candidates: int) -> None:
    """Draw two panels of the replicated study into `axes`: mean activations of all latents, and candidate latents.

    Left: mean activation of each latent (log10) by condition and over all images, the most active latent first.
    Right: each latent's mean activation on semi-nude images minus that on clothed images. A difference below 0 is drawn
    as 0. The `n_candidates` latents with the largest difference are marked. The study calls them candidates.

    axes: an array of two axes, left and right.
    values: activation of each latent on each image [image, latent].
    condition: condition of each image, semi_nude or clothed.
    """
    means = {name: values[condition == name].mean(0) for name in CONDITIONS}
    overall = values.mean(0)
    order = np.argsort(-overall)
    for name in CONDITIONS:
        shown = np.log10(means[name][order] + LOG_FLOOR)
        axes[0].plot(
            shown, ".", ms=1.5, label=figures.CONDITION_LABELS[name], color=figures.CONDITION_COLOURS[name], alpha=0.6
        )
    axes[0].plot(np.log10(overall[order] + LOG_FLOOR), label="all images", color="black", lw=1)
    axes[0].set(xlabel="latents, most active first", ylabel="log10 mean activation", title="Mean activation")
    axes[0].legend(markerscale=6)
    clipped = np.maximum(-paired.gap(means), 0)
    candidates = np.argsort(-clipped)[:n_candidates]
    axes[1].vlines(np.arange(len(clipped)), 0, clipped, color=figures.GREY, lw=0.5)
    label = f"{len(candidates)} candidates"
    axes[1].plot(candidates, clipped[candidates], "o", color=figures.VERMILION, ms=3.5, label=label)
    axes[1].set(xlabel="latent", ylabel="semi-nude - clothed, clipped at 0", title="Candidates of the published study")
    axes[1].legend()


def draw_lists(ax: Axes, tests: pd.DataFrame, found: dict[LatentList, pd.DataFrame]) -> None:
    """Draw a point per latent into `ax`, at its activation gap (x) and effect gap (y), and mark two lists of latents.

    A gap is the value on the clothed image of a pair minus the value on the semi-nude image. R is the log-probability
    that CLIP gives to the true emotion, nats. A latent's effect estimates how much R would fall if the latent's
    activation were set to 0. Activations and effects are those of the unedited model.

    ax: the axes to draw into.
    tests: a row per latent of the SAE, in the order of their indices. The columns act_mean (mean activation gap) and
        eff_mean (mean effect gap, nats) are drawn.
    found: the latents to mark, a table for each list, with the column latent (index). The list bias has latents whose
        effect harms semi-nude women. The list perception has latents whose activation differs by condition.
    """
    ax.axhline(0, color="black", lw=0.6)
    ax.plot(tests["act_mean"], tests["eff_mean"], ".", color=figures.GREY, ms=4, label="all latents")
    markers = {"perception": ("s", figures.SKY), "bias": ("v", figures.VERMILION)}
    for kind, listed in found.items():
        marker, colour = markers[kind]
        points = tests.loc[listed["latent"].astype(int), ["act_mean", "eff_mean"]].to_numpy().T
        ax.plot(*points, marker, mfc="none", color=colour, ms=6, label=f"{kind} ({len(listed)})")
    ax.set(
        xlabel="activation gap (clothed - semi-nude)",
        ylabel="effect gap on R (nats)",
        title="Perception is not bias",
    )
    ax.legend()


def draw_clusters(axes: np.ndarray, scores: np.ndarray, tried: pd.DataFrame, condition: np.ndarray) -> None:
    """Draw three panels into `axes`: the images on two principal components, and two measures of their clusters.

    The two measures are drawn over the number of clusters k: inertia and silhouette.

    axes: an array of three axes.
    scores: the scores of each image on the two components [image, 2].
    tried: a row per number of clusters, with k, inertia (sum of squared distances of the images to their cluster
        centres) and silhouette (silhouette coefficient, mean over images).
    condition: condition of each image, semi_nude or clothed.
    """
    for name in CONDITIONS:
        colour, label = figures.CONDITION_COLOURS[name], figures.CONDITION_LABELS[name]
        axes[0].plot(*scores[condition == name].T, ".", ms=5, color=colour, label=label, alpha=0.7)
    axes[0].set(xlabel="PC 1", ylabel="PC 2", title="Images, PCA of pooled latents")
    axes[0].legend()
    axes[1].plot(tried["k"], tried["inertia"], "o-", color=figures.BLUE)
    axes[1].set(xlabel="clusters k", ylabel="within-cluster sum of squares", title="Elbow")
    axes[2].plot(tried["k"], tried["silhouette"], "o-", color=figures.BLUE)
    axes[2].set(xlabel="clusters k", ylabel="mean silhouette", title="Silhouette", ylim=(0, 1))


def draw(
    point: Point,
    values: np.ndarray,
    condition: np.ndarray,
    tests: pd.DataFrame,
    found: dict[LatentList, pd.DataFrame],
    scores: np.ndarray,
    tried: pd.DataFrame,
    n_candidates: int,
) -> Figure:
    """Draw the statistics of one SAE in six panels.

    Upper row: mean activation of each latent, the candidate latents of the replicated study, and effect gap against
    activation gap. Lower row: images on two principal components, then inertia and silhouette by number of clusters. A
    gap is the value on the clothed image of a pair minus the value on the semi-nude image. A latent's effect estimates
    how much the log-probability of the true emotion (nats) would fall if the latent's activation were set to 0.

    point: layer and expansion of the SAE, for the title.
    values: activation of each latent on each image [image, latent].
    condition: condition of each image, semi_nude or clothed.
    tests: a row per latent, with act_mean (mean activation gap) and eff_mean (mean effect gap, nats).
    found: the latents to mark: a table for each of the lists bias (the effect harms semi-nude women) and perception
        (the activation differs by condition), with the column latent (index).
    scores: the scores of each image on the two components [image, 2].
    tried: a row per number of clusters, with k, inertia (sum of squared distances to the cluster centres) and
        silhouette (silhouette coefficient, mean over images).
    n_candidates: number of candidate latents to mark. Their activation on semi-nude images exceeds that on clothed
        images most.
    Returns the figure.
    """
    figure, axes = figures.panels(3, f"SAE after block {point.layer}, expansion {point.expansion}", rows=2)
    draw_activations(axes[0, :2], values, condition, n_candidates)
    draw_lists(axes[0, 2], tests, found)
    draw_clusters(axes[1], scores, tried, condition)
    return figure

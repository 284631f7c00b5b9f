"""Localisation of a heatmap: scores of one map against the mask of one region, each with its chance level.

In all functions `heat` is a map on the grid of patches [gh, gw]; only its positive part counts as relevance, unless the
function says otherwise. `mask` is the patch coverage [gh, gw] in [0, 1]: the exact share of each patch's area inside
the region (`Dataset.coverage`).
A zero map, an empty mask and a full mask have defined scores, which each function states.
`degenerate` detects such cases, so that they can be counted.
"""

from __future__ import annotations

import numpy as np
import scipy
from jaxtyping import Float

from stages.core.run.labels import INSIDE

Grid = Float[np.ndarray, "gh gw"]


def degenerate(heat: Grid, mask: Grid) -> bool:
    """Check whether a score of the map means nothing: no positive value, an empty mask, or a mask of the whole image.

    heat: the map, one value per patch. mask: share of each patch's area inside the region, 0 to 1.
    """
    return bool(not (heat > 0).any() or mask.sum() == 0 or (mask >= 1).all())


def energy_lift(heat: Grid, mask: Grid) -> float:
    """Compute the energy lift: share of the map's positive mass in the mask / the mask's share of the area. Chance: 1.

    heat: the map, one value per patch. mask: share of each patch's area inside the region, 0 to 1.
    The positive mass is the sum of the positive values. A zero map or an empty mask scores 1 (no preference).
    """
    area = mask.mean()
    return relevance_mass(heat, mask) / float(area) if (heat > 0).any() and area > 0 else 1.0


def relevance_mass(heat: Grid, mask: Grid) -> float:
    """Compute the share of the map's positive mass in the mask (Arras et al. 2022).

    heat: the map, one value per patch. mask: share of each patch's area inside the region, 0 to 1.
    The positive mass is the sum of the positive values. Chance is the mask's share of the area. A zero map scores
    chance.
    """
    positive = np.maximum(heat, 0).astype(np.float64)
    total = positive.sum()
    return float((positive * mask).sum() / total) if total > 0 else float(mask.mean())


def matched_area_iou(heat: Grid, mask: Grid) -> float:
    """Compute the IoU of the mask with the n patches of the largest values, where n is the mask's area in patches.

    heat: the map, one value per patch. mask: share of each patch's area inside the region, 0 to 1.
    n is the sum of `mask`, rounded, but at least 1. If several patches tie for the last places, each of them counts in
    part. A map without positive values scores chance: a / (2 - a), where a is the mask's share of the picture. An empty
    mask scores 0.
    """
    if mask.sum() == 0:
        return 0.0
    if not (heat > 0).any():
        return chance_iou(mask)
    n = max(1, round(float(mask.sum())))
    return _soft_iou(_top(np.maximum(heat, 0), n), mask)


def chance_iou(mask: Grid) -> float:
    """Compute the matched-area IoU of a map without information (the chance level).

    The matched-area IoU compares the mask with the patches of the map's largest values. The number of these patches is
    the mask's area in patches.

    mask: share of each patch's area inside the region, 0 to 1.
    Returns a / (2 - a), where a is the mask's share of the area.
    """
    area = float(mask.mean())
    return area / (2 - area)


def _top(heat: Grid, n: int) -> Grid:
    """Weight of each patch among the n largest: 1 or 0, and an equal share of the rest for ties at the cut."""
    cut = np.partition(heat.ravel(), -n)[-n]
    above, ties = heat > cut, heat == cut
    return above + ties * (n - above.sum()) / ties.sum()


def _soft_iou(chosen: Grid, mask: Grid) -> float:
    """IoU of patches, each with a weight from 0 to 1, and a mask: areas, exact if each weight is 0 or 1."""
    shared = float((chosen * mask).sum())
    union = float(chosen.sum() + mask.sum()) - shared
    return shared / union


def threshold_iou(heat: Grid, mask: Grid, threshold: float = 0.5) -> float:
    """Compute the IoU of the mask with the patches at or above a threshold. For comparison with other work only.

    heat: the map, one value per patch. mask: share of each patch's area inside the region, 0 to 1.
    threshold: from 0 to 1. The map, with its negative values, is first scaled so that its values go from 0 to 1.
    A constant map selects nothing and scores 0.
    """
    low, high = float(heat.min()), float(heat.max())
    chosen = (heat - low) >= threshold * (high - low) if high > low else np.zeros_like(heat, bool)
    return _soft_iou(chosen.astype(float), mask) if chosen.any() else 0.0


def relevance_rank_accuracy(heat: Grid, mask: Grid) -> float:
    """Compute the share of the n patches with the largest values that lie in the mask (Arras et al. 2022).

    heat: the map, one value per patch. mask: share of each patch's area inside the region, 0 to 1.
    A patch is in the mask if at least half of its area is inside the region. n is the number of patches in the mask.
    Chance is n / number of all patches. An empty mask scores 0. A zero map scores chance.
    """
    inside = mask >= INSIDE
    n = int(inside.sum())
    if n == 0:
        return 0.0
    if not (heat > 0).any():
        return n / inside.size
    return float((_top(np.maximum(heat, 0), n) * inside).sum() / n)


def pixel_auc(heat: Grid, mask: Grid) -> float:
    """Compute the probability that a patch inside the mask has a higher value than one outside. Chance: 0.5.

    heat: the map, one value per patch. mask: share of each patch's area inside the region, 0 to 1.
    A patch is inside if at least half of its area is inside the region. Values keep their sign. Ties count half. An
    empty or full mask scores 0.5.
    """
    inside = (mask >= INSIDE).ravel()
    n_in, n_out = int(inside.sum()), int((~inside).sum())
    if n_in == 0 or n_out == 0:
        return 0.5
    ranks = scipy.stats.rankdata(heat.ravel())
    return float((ranks[inside].sum() - n_in * (n_in + 1) / 2) / (n_in * n_out))


def pointing_hit(heat: Grid, mask: Grid) -> float:
    """Compute the pointing hit: 1 if the patch with the map's largest value lies in the mask, else 0.

    heat: the map, one value per patch. mask: share of each patch's area inside the region, 0 to 1.
    If several patches tie at the largest value, the score is the share of these patches in the mask. A patch is in the
    mask if at least half of its area is inside the region. Chance is the share of patches in the mask. A zero map
    scores chance.
    """
    inside = mask >= INSIDE
    if not (heat > 0).any():
        return float(inside.mean())
    return float(inside[heat == heat.max()].mean())


def scores(heat: Grid, mask: Grid) -> dict[str, float]:
    """Compute all localisation scores of one map against one mask.

    heat: the map, one value per patch. mask: share of each patch's area inside the region, 0 to 1.
    Returns:
        energy_lift         share of the map's positive mass in the mask / the mask's share of the area
        matched_area_iou    IoU of the mask with the patches of the largest values, as many as the mask has area
        threshold_iou       IoU of the mask with the patches at or above .5 in the min-max scaled map
        relevance_mass      share of the map's positive mass in the mask
        rank_accuracy       share of the n patches of the largest values that lie in the mask; n: patches in the mask
        pixel_auc           probability that a patch inside has a higher value than one outside
        pointing_hit        share of the patches with the largest value that lie in the mask
    """
    return {
        "energy_lift": energy_lift(heat, mask),
        "matched_area_iou": matched_area_iou(heat, mask),
        "threshold_iou": threshold_iou(heat, mask),
        "relevance_mass": relevance_mass(heat, mask),
        "rank_accuracy": relevance_rank_accuracy(heat, mask),
        "pixel_auc": pixel_auc(heat, mask),
        "pointing_hit": pointing_hit(heat, mask),
    }


def chance(mask: Grid) -> dict[str, float]:
    """Compute the chance level of each localisation score for a mask: the score of a map without information.

    mask: share of each patch's area inside the region, 0 to 1.
    Returns:
        energy_lift                    1
        matched_area_iou               a / (2 - a), with a the mask's share of the area
        relevance_mass                 a
        rank_accuracy, pointing_hit    share of patches in the mask (at least half of the patch inside the region)
        pixel_auc                      .5
    threshold_iou has no chance level, so this key is absent.
    """
    area, inside = float(mask.mean()), float((mask >= INSIDE).mean())
    return {
        "energy_lift": 1.0,
        "matched_area_iou": chance_iou(mask),
        "relevance_mass": area,
        "rank_accuracy": inside,
        "pixel_auc": 0.5,
        "pointing_hit": inside,
    }

"""Matched pairs, and inference on them clustered by woman. The published study's tests stand beside.

A pair is two images of one woman with one expression: one semi-nude, one clothed. The pair is the unit of inference.
Women are the clusters: signs are flipped and bootstraps are drawn by woman, never by image, token or latent.
`stages/studies/inference.md` has the error rates, the power and the coverage that were measured.
"""

from stages.core.paired.bootstrap import (
    Interval,
    bootstrap_interval,
    bootstrap_settings,
    interval,
)
from stages.core.paired.bounded import SHARE, Bounds, difference_bounds
from stages.core.paired.clusters import TooFewWomen, by_cluster
from stages.core.paired.pairs import Pairs, gap
from stages.core.paired.permutation import max_t, paired_tests, signed_ranks, smallest_p
from stages.core.paired.published import published_tests
from stages.core.paired.romano_wolf import harm_p

__all__ = [
    "SHARE",
    "Bounds",
    "Interval",
    "Pairs",
    "TooFewWomen",
    "bootstrap_interval",
    "bootstrap_settings",
    "by_cluster",
    "difference_bounds",
    "gap",
    "harm_p",
    "interval",
    "max_t",
    "paired_tests",
    "published_tests",
    "signed_ranks",
    "smallest_p",
]

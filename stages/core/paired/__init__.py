"""Matched pairs, and inference on them clustered by woman. The published study's tests stand beside.

A pair is two images of one woman with one expression: one semi-nude, one clothed. The pair is the unit of inference.
Women are the clusters: signs are flipped and bootstraps are drawn by woman, never by image, token or latent.
"""

from stages.core.paired.bootstrap import (
    Interval,
    bootstrap_interval,
    bootstrap_means,
    bootstrap_settings,
    interval,
)
from stages.core.paired.clusters import TooFewWomen, by_cluster
from stages.core.paired.pairs import Pairs, gap
from stages.core.paired.permutation import max_t, paired_tests, signed_ranks, smallest_p
from stages.core.paired.published import published_tests

__all__ = [
    "Interval",
    "Pairs",
    "TooFewWomen",
    "bootstrap_interval",
    "bootstrap_means",
    "bootstrap_settings",
    "by_cluster",
    "gap",
    "interval",
    "max_t",
    "paired_tests",
    "published_tests",
    "signed_ranks",
    "smallest_p",
]

"""Whether CLIP reads one condition worse than the other: without such a gap there is no bias to explain.

The gap in R (log-probability of the true emotion, nats) between twins is measured on the women used for choosing, in
the model without an edit. The condition with the lower R is the *losing* one. It may be either: the result says which.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.core.clip import readout
from stages.core.latents.spliced_clip import Outcomes
from stages.core.paired import Interval, Pairs
from stages.core.run.labels import CLOTHED, CONDITIONS, SEMI_NUDE
from stages.core.schema import Inference


@dataclass(frozen=True)
class ReadoutGap:
    """How CLIP reads the emotions of women in the two conditions, without an edit."""

    R: Interval
    """Mean gap in R (log-probability of the true emotion, nats), clothed minus semi-nude twin, with its interval over
    women."""
    skill: float
    """Accuracy in the condition that is read better, rescaled: chance is 0, all correct is 1."""

    def losing(self, inference: Inference) -> str | None:
        """Return the condition that CLIP reads worse, `semi_nude` or `clothed`, or None if there is no gap to explain.

        There is no gap if the interval of the gap in R does not lie beyond `inference.min_gap` on one side of zero, or
        if CLIP does not read faces: its skill is below `inference.min_readout`.
        """
        if self.skill < inference.min_readout:
            return None
        if self.R.low > inference.min_gap:
            return SEMI_NUDE
        return CLOTHED if self.R.high < -inference.min_gap else None


def measure(outcomes: Outcomes, pairs: Pairs, n_emotions: int, inference: Inference) -> ReadoutGap:
    """Measure the gap in R between twins, and how well CLIP reads the condition that it reads better.

    outcomes: what CLIP gives without an edit for each image of `pairs.rows`, in that order.
    pairs: the pairs of the women used for choosing.
    n_emotions: number of emotions that the readout chooses from.
    inference: settings of the interval.
    """
    correct = pairs.split(np.ravel(outcomes.correct))
    best = max(float(correct[condition].mean()) for condition in CONDITIONS)
    return ReadoutGap(
        R=pairs.interval(pairs.gap(np.ravel(outcomes.R)), inference), skill=readout.skill(best, n_emotions)
    )

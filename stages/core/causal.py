"""The causal test on confirmation women: endpoints of each arm, reliance on a region, the edit beside its controls.

    R          log-probability of the true emotion, nats
    accuracy   1 where the true emotion is the most probable one, else 0
    gap        clothed minus semi-nude twin
    reliance   change of an endpoint when a region is greyed out: above 0 the region misleads, below it is needed
    p          (1 + random sets that do as well) / (1 + random sets)

Means are over pairs, intervals over women.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from stages.core import intervene, paired, readout, sections
from stages.core.dataset import CLOTHED, CONDITIONS, SEMI_NUDE
from stages.core.paired import Interval
from stages.core.splice import Arm, Outcomes

ENDPOINTS = ("accuracy", "R")
BEFORE_AND_AFTER = ("original", "edited")


@dataclass(frozen=True)
class Women:
    """The confirmation pairs, and means over them with intervals over women."""

    pairs: pd.DataFrame
    """As in `Dataset.pairs`: identity, and the row of each condition's image."""
    emotions: list[str]
    inference: sections.Inference

    @property
    def rows(self) -> np.ndarray:
        """Semi-nude images, then clothed ones, pair by pair."""
        return np.concatenate([self.pairs[condition] for condition in CONDITIONS])

    def split(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Values of `rows` [.., image] by condition [.., pair]."""
        n = len(self.pairs)
        return {SEMI_NUDE: values[..., :n], CLOTHED: values[..., n:]}

    def interval(self, values: np.ndarray) -> Interval:
        """Mean over pairs."""
        return paired.interval(values, self.pairs["identity"].to_numpy(), **self.inference.bootstrap)

    def summary(self, values: np.ndarray) -> dict[str, dict[str, float]]:
        """Both conditions and their gap, clothed minus semi-nude."""
        by = self.split(values)
        shown = {**by, "gap": by[CLOTHED] - by[SEMI_NUDE]}
        return {label: self.interval(numbers).as_metrics() for label, numbers in shown.items()}


@dataclass(frozen=True)
class Tried:
    """Arms by name, and what came out of them on the images of `Women.rows`."""

    arms: dict[str, Arm]
    outcomes: Outcomes

    def of(self, name: str) -> Outcomes:
        """Of one arm: arrays [image]."""
        i = list(self.arms).index(name)
        return Outcomes(*(getattr(self.outcomes, field.name)[i] for field in fields(Outcomes)))

    def endpoints(self, name: str) -> dict[str, np.ndarray]:
        """R (nats) and accuracy (0 or 1) of one arm, image by image."""
        found = self.of(name)
        return {"accuracy": found.correct, "R": found.R}

    def __or__(self, other: Tried) -> Tried:
        """Both, on the same images."""
        joined = (
            np.concatenate([getattr(x.outcomes, field.name) for x in (self, other)]) for field in fields(Outcomes)
        )
        return Tried(self.arms | other.arms, Outcomes(*joined))


def summarise(women: Women, tried: Tried, names: list[str], greyed: dict[str, Tried]) -> dict[str, dict]:
    """Accuracy and R of the arms named, and of the original with a region greyed out."""
    shown = {name: tried.endpoints(name) for name in names}
    shown |= {f"{region}_greyed": found.endpoints("original") for region, found in greyed.items()}
    return {
        endpoint: {name: women.summary(values[endpoint]) for name, values in shown.items()} for endpoint in ENDPOINTS
    }


def reliance(tried: Tried, greyed: Tried, arm: str) -> dict[str, np.ndarray]:
    """Change of both endpoints, image by image, with a region greyed out: above 0 it misleads, below it is needed."""
    whole, without = tried.endpoints(arm), greyed.endpoints(arm)
    return {endpoint: without[endpoint] - whole[endpoint] for endpoint in ENDPOINTS}


def summarise_reliance(women: Women, tried: Tried, greyed: dict[str, Tried], arm: str) -> dict[str, dict]:
    """`reliance` of one arm on each region, by condition."""
    return {
        region: {name: women.summary(change) for name, change in reliance(tried, found, arm).items()}
        for region, found in greyed.items()
    }


def judge_edit(women: Women, tried: Tried, greyed: dict[str, Tried], controls: pd.DataFrame) -> dict[str, dict]:
    """What the edit gives and costs, and how far reliance on the bust falls. p counts random sets that do as well."""
    found: dict[str, dict] = {}
    for endpoint in ENDPOINTS:
        original, edited = (women.split(tried.endpoints(arm)[endpoint]) for arm in BEFORE_AND_AFTER)
        gain = women.interval(edited[SEMI_NUDE] - original[SEMI_NUDE])
        gap = float((original[CLOTHED] - original[SEMI_NUDE]).mean())
        found[endpoint] = {
            "semi_nude_gain": gain.as_metrics(),
            "clothed_loss": women.interval(original[CLOTHED] - edited[CLOTHED]).as_metrics(),
            **({"share_of_gap_recovered": gain.estimate / gap} if gap > 0 else {}),
            **against(controls[f"semi_nude_{endpoint}_gain"].to_numpy(), gain.estimate),
        }
    before, after = (women.split(reliance(tried, greyed["bust"], arm)["R"])[SEMI_NUDE] for arm in BEFORE_AND_AFTER)
    fall = women.interval(before - after)
    falls = before.mean() - controls["bust_reliance_R"].to_numpy()
    return found | {"bust_reliance": {"fall": fall.as_metrics(), **against(falls, fall.estimate)}}


def against(controls: np.ndarray, effect: float) -> dict[str, float]:
    """An effect beside those of the random sets."""
    return {"p_random_sets": intervene.control_p(effect, controls), "best_random_set": float(controls.max())}


def guard(women: Women, tried: Tried) -> dict[str, float]:
    """What must hold whatever the edit does, and how far it moves the embeddings."""
    cosine = women.split(tried.of("edited").cosine)
    original = tried.of("original")

    def largest_change(arm: str) -> float:
        return float(np.abs(tried.of(arm).R - original.R).max())

    return {
        **{f"cosine_to_original_{condition}": float(cosine[condition].mean()) for condition in CONDITIONS},
        "error_kept_largest_R_change": largest_change("error_kept"),
        "edited_patches_largest_R_change": largest_change("edited_patches"),
        "readout_skill": readout.skill(float(women.split(original.correct)[CLOTHED].mean()), len(women.emotions)),
    }

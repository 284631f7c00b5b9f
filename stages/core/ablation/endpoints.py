"""The endpoints of the causal test: what each arm does, reliance on a region, the edit beside its controls.

    R          log-probability of the true emotion, nats
    accuracy   1 where the true emotion is the most probable one, else 0
    gap        clothed minus semi-nude twin
    reliance   change of an endpoint when a region is greyed out: above 0 the region misleads, below it is needed
    p          (1 + random sets that do as well) / (1 + random sets)

Means are taken over pairs, intervals over women.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from stages.core import paired
from stages.core.ablation.controls import control_p
from stages.core.clip import readout
from stages.core.intervention.spliced_clip import Arm, Outcomes
from stages.core.paired import Pairs
from stages.core.run.labels import CLOTHED, CONDITIONS, SEMI_NUDE
from stages.core.schema import Inference

ENDPOINTS = ("accuracy", "R")
BEFORE_AND_AFTER = ("original", "edited")


@dataclass(frozen=True)
class ArmOutcomes:
    """Arms by name, and what came out of them on the images of `Pairs.rows`."""

    arms: dict[str, Arm]
    outcomes: Outcomes

    def of_arm(self, name: str) -> Outcomes:
        """Outcomes of one arm, arrays [image]."""
        i = list(self.arms).index(name)
        return Outcomes(*(getattr(self.outcomes, field.name)[i] for field in fields(Outcomes)))

    def endpoints(self, name: str) -> dict[str, np.ndarray]:
        """R (nats) and accuracy (0 or 1) of one arm, arrays [image]."""
        found = self.of_arm(name)
        return {"accuracy": found.correct, "R": found.R}

    def __or__(self, other: ArmOutcomes) -> ArmOutcomes:
        """The arms of both, run on the same images."""
        joined = (
            np.concatenate([getattr(x.outcomes, field.name) for x in (self, other)]) for field in fields(Outcomes)
        )
        return ArmOutcomes(self.arms | other.arms, Outcomes(*joined))


@dataclass(frozen=True)
class CausalTest:
    """Outcomes of all arms on the confirmation pairs, and of some arms with a region greyed out."""

    pairs: Pairs
    inference: Inference
    arms: ArmOutcomes
    greyed: dict[str, ArmOutcomes]
    """By the region that is greyed out."""

    def summarise(self, values: np.ndarray) -> dict[str, dict[str, float]]:
        """Means of both conditions and of the gap with intervals, from values [image]."""
        return self.pairs.summary(values, self.inference)

    def summarise_arms(self, names: list[str]) -> dict[str, dict]:
        """Accuracy and R of the arms named, and of the original with a region greyed out."""
        shown = {name: self.arms.endpoints(name) for name in names}
        shown |= {f"{region}_greyed": found.endpoints("original") for region, found in self.greyed.items()}
        return {
            endpoint: {name: self.summarise(values[endpoint]) for name, values in shown.items()}
            for endpoint in ENDPOINTS
        }

    def reliance(self, arm: str, region: str) -> dict[str, np.ndarray]:
        """Change of both endpoints [image] when the region is greyed out: above 0 it misleads, below it is needed."""
        whole, without = self.arms.endpoints(arm), self.greyed[region].endpoints(arm)
        return {endpoint: without[endpoint] - whole[endpoint] for endpoint in ENDPOINTS}

    def summarise_reliance(self, arm: str) -> dict[str, dict]:
        """Reliance of one arm on each region, by condition."""
        return {
            region: {name: self.summarise(change) for name, change in self.reliance(arm, region).items()}
            for region in self.greyed
        }

    def judge_edit(self, controls: pd.DataFrame) -> dict[str, dict]:
        """What the edit gives and costs, and how far reliance on the bust falls, each beside the random sets.

        controls: a row per random set with semi_nude_R_gain, semi_nude_accuracy_gain and bust_reliance_R.
        """
        found: dict[str, dict] = {}
        for endpoint in ENDPOINTS:
            before, after = (self.pairs.split(self.arms.endpoints(arm)[endpoint]) for arm in BEFORE_AND_AFTER)
            gain = self.pairs.interval(after[SEMI_NUDE] - before[SEMI_NUDE], self.inference)
            gap = float(paired.gap(before).mean())
            found[endpoint] = {
                "semi_nude_gain": gain.as_metrics(),
                "clothed_loss": self.pairs.interval(before[CLOTHED] - after[CLOTHED], self.inference).as_metrics(),
                **({"share_of_gap_recovered": gain.estimate / gap} if gap > 0 else {}),
                **against_controls(gain.estimate, controls[f"semi_nude_{endpoint}_gain"].to_numpy()),
            }
        relied = [self.pairs.split(self.reliance(arm, "bust")["R"])[SEMI_NUDE] for arm in BEFORE_AND_AFTER]
        fall = self.pairs.interval(relied[0] - relied[1], self.inference)
        falls = relied[0].mean() - controls["bust_reliance_R"].to_numpy()
        return found | {"bust_reliance": {"fall": fall.as_metrics(), **against_controls(fall.estimate, falls)}}

    def guardrails(self, n_emotions: int) -> dict[str, float]:
        """What must hold whatever the edit does, and how far the edit moves the embeddings."""
        cosine, before = self.pairs.split(self.arms.of_arm("edited").cosine), self.arms.of_arm("original")

        def largest_change(arm: str) -> float:
            return float(np.abs(self.arms.of_arm(arm).R - before.R).max())

        return {
            **{f"cosine_to_original_{condition}": float(cosine[condition].mean()) for condition in CONDITIONS},
            "error_kept_largest_R_change": largest_change("error_kept"),
            "edited_patches_largest_R_change": largest_change("edited_patches"),
            "readout_skill": readout.skill(float(self.pairs.split(before.correct)[CLOTHED].mean()), n_emotions),
        }


def against_controls(effect: float, controls: np.ndarray) -> dict[str, float]:
    """The p-value of an effect against the random sets' effects, and the largest of these."""
    return {"p_random_sets": control_p(effect, controls), "best_random_set": float(controls.max())}

"""The endpoints of the causal test: what each arm does, reliance on a region, the edit beside its controls.

    arm        a change of CLIP's activations after one block, or none (`original`); `edited` is the edit under test
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
    """Arms by name, and what came out of them.

    arms: the functions, in the order of the first axis of `outcomes`.
    outcomes: arrays [arm, image]; the images are those of `Pairs.rows`, in that order.
    """

    arms: dict[str, Arm]
    outcomes: Outcomes

    def of_arm(self, name: str) -> Outcomes:
        """Select the outcomes of one arm, with one value per image.

        name: its key in `arms`. Raises ValueError for an unknown name.
        """
        i = list(self.arms).index(name)
        return Outcomes(*(getattr(self.outcomes, field.name)[i] for field in fields(Outcomes)))

    def endpoints(self, name: str) -> dict[str, np.ndarray]:
        """Select the primary endpoints of one arm, with one value per image.

        name: its key in `arms`. Raises ValueError for an unknown name.
        Returns the keys `accuracy` (1 where the most probable emotion is the true one, else 0) and `R` (log-probability
        of the true emotion, nats).
        """
        found = self.of_arm(name)
        return {"accuracy": found.correct, "R": found.R}

    def __or__(self, other: ArmOutcomes) -> ArmOutcomes:
        """Join the arms and outcomes of both. All arms must have run on the same images."""
        joined = (
            np.concatenate([getattr(x.outcomes, field.name) for x in (self, other)]) for field in fields(Outcomes)
        )
        return ArmOutcomes(self.arms | other.arms, Outcomes(*joined))


@dataclass(frozen=True)
class CausalTest:
    """Outcomes of all arms on the pairs of confirmation women, and of some arms with a region greyed out.

    inference: settings of the bootstrap intervals.
    """

    pairs: Pairs
    inference: Inference
    arms: ArmOutcomes
    greyed: dict[str, ArmOutcomes]
    """Outcomes by the region that is greyed out, `bust` or `face`."""

    def summarise(self, values: np.ndarray) -> dict[str, dict[str, float]]:
        """Compute the means of both conditions and of the gap, each with its bootstrap interval over women.

        values: one value for each image of `self.pairs.rows`, in that order.
        Returns for each of the keys semi_nude, clothed and gap a dictionary with estimate, low and high.
        """
        return self.pairs.summary(values, self.inference)

    def summarise_arms(self, names: list[str]) -> dict[str, dict]:
        """Summarise accuracy and R of some arms, and of the arm `original` with a region greyed out.

        names: names of the arms. R is the log-probability of the true emotion, nats.
        Returns, by endpoint (`accuracy`, `R`) and then by arm, the means and intervals of `summarise`: keys semi_nude,
        clothed and gap. With a region greyed out the arm is called `bust_greyed` or `face_greyed`.
        """
        shown = {name: self.arms.endpoints(name) for name in names}
        shown |= {f"{region}_greyed": found.endpoints("original") for region, found in self.greyed.items()}
        return {
            endpoint: {name: self.summarise(values[endpoint]) for name, values in shown.items()}
            for endpoint in ENDPOINTS
        }

    def reliance(self, arm: str, region: str) -> dict[str, np.ndarray]:
        """Compute how far an arm relies on a region: the change of each endpoint when the region is greyed out.

        arm: name of an arm that was run with the region greyed out. region: `bust` or `face`.
        Returns the keys `accuracy` and `R` (log-probability of the true emotion, nats), with one change per image.
        Above 0 the region misleads the readout, below 0 the readout needs it.
        """
        whole, without = self.arms.endpoints(arm), self.greyed[region].endpoints(arm)
        return {endpoint: without[endpoint] - whole[endpoint] for endpoint in ENDPOINTS}

    def summarise_reliance(self, arm: str) -> dict[str, dict]:
        """Summarise the reliance of one arm on each region that was greyed out (`reliance`).

        arm: name of an arm that was run with the regions greyed out.
        Returns, by region (`bust`, `face`) and then by endpoint (`accuracy`, `R`), the means and intervals of
        `summarise`: keys semi_nude, clothed and gap.
        """
        return {
            region: {name: self.summarise(change) for name, change in self.reliance(arm, region).items()}
            for region in self.greyed
        }

    def judge_edit(self, controls: pd.DataFrame) -> dict[str, dict]:
        """Compare the arm `edited` with `original`, and its gain and fall in reliance with random sets of latents.

        controls: a row per random set, edited in the same way. Columns: semi_nude_R_gain and semi_nude_accuracy_gain
            (mean gain over semi-nude images), bust_reliance_R (mean reliance on the bust on semi-nude images after the
            edit, nats).
        Returns for each of the keys accuracy and R:
            semi_nude_gain            gain on semi-nude images, with interval
            clothed_loss              loss on clothed images, with interval
            share_of_gap_recovered    semi-nude gain / gap before the edit; missing if there was no gap above 0
            p_random_sets             p-value of the semi-nude gain against the random sets
            best_random_set           largest semi-nude gain of a random set
        The key bust_reliance has `fall` (how much the reliance of R on the bust falls on semi-nude images, nats, with
        interval), and p_random_sets and best_random_set of this fall.
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
        """Compute checks that must hold for any edit, and how far the edit moves the image embeddings.

        n_emotions: number of emotions that the readout chooses from.
        Returns:
            cosine_to_original_semi_nude, cosine_to_original_clothed    mean cosine of edited and original embedding
            error_kept_largest_R_change        largest |change of R| with no latent edited, nats; should be about 0
            edited_patches_largest_R_change    the same for the edit at patches only; about 0 after the last block
            readout_skill                      accuracy of the original on clothed images, rescaled so that chance is 0
        """
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
    """Compare an effect with the same effect of random sets of latents; larger is stronger.

    controls: the effect of each random set.
    Returns p_random_sets, the p-value of `controls.control_p`, and best_random_set, the largest effect of a random set.
    """
    return {"p_random_sets": control_p(effect, controls), "best_random_set": float(controls.max())}

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
from stages.core.latents.spliced_clip import Arm, Outcomes
from stages.core.paired import SHARE, Bounds, Pairs, difference_bounds
from stages.core.run.labels import CONDITIONS, OTHER_CONDITION
from stages.core.schema import Inference

ENDPOINTS: dict[str, Bounds | None] = {"accuracy": SHARE, "R": None}  # and the bounds of their values
BEFORE_AND_AFTER = ("original", "edited")


@dataclass(frozen=True)
class ArmOutcomes:
    """Arms (interventions on the residual stream) by name, and what CLIP gives under each of them.

    arms: the functions, in the order of the first axis of `outcomes`.
    outcomes: arrays [arm, image]. The images are those of `Pairs.rows`, in that order: all semi-nude, then all clothed.
    """

    arms: dict[str, Arm]
    outcomes: Outcomes

    def of_arm(self, name: str) -> Outcomes:
        """Select the outcomes of one arm, with one value per image.

        name: key of the arm in `arms`. Raises ValueError for an unknown name.
        Returns the fields:
            R          log-probability of the true emotion, nats
            correct    1 where the most probable emotion is the true one, else 0
            cosine     cosine of the image embedding with the embedding of the same pixels without any arm
        """
        i = list(self.arms).index(name)
        return Outcomes(*(getattr(self.outcomes, field.name)[i] for field in fields(Outcomes)))

    def endpoints(self, name: str) -> dict[str, np.ndarray]:
        """Select the primary endpoints of one arm, with one value per image.

        name: key of the arm in `arms`. Raises ValueError for an unknown name.
        Returns the keys:
            accuracy    1 where the most probable emotion is the true one, else 0
            R           log-probability of the true emotion, nats
        """
        found = self.of_arm(name)
        return {"accuracy": found.correct, "R": found.R}

    def __or__(self, other: ArmOutcomes) -> ArmOutcomes:
        """Return the arms and outcomes of `self`, then those of `other`. All arms must have run on the same images."""
        joined = (
            np.concatenate([getattr(x.outcomes, field.name) for x in (self, other)]) for field in fields(Outcomes)
        )
        return ArmOutcomes(self.arms | other.arms, Outcomes(*joined))


@dataclass(frozen=True)
class CausalTest:
    """Outcomes of all arms (interventions on the residual stream) on the pairs of confirmation women.

    Confirmation women are the women on whom no latent was chosen. Some arms also ran on images with a region greyed
    out (`greyed`).

    pairs: the pairs of twins, one semi-nude and one clothed.
    inference: settings of the intervals.
    losing: the condition that CLIP reads worse, in which the edit should gain.
    """

    pairs: Pairs
    inference: Inference
    losing: str
    arms: ArmOutcomes
    greyed: dict[str, ArmOutcomes]
    """Outcomes by the region that is greyed out, `bust` or `face`."""

    def summarise(self, values: np.ndarray, bounds: Bounds | None) -> dict[str, dict[str, float]]:
        """Compute the mean of each condition, and the mean gap (clothed minus semi-nude), with intervals over women.

        values: one value for each image of `self.pairs.rows`, in that order.
        bounds: the smallest and the largest possible value, if there are any.
        Returns the keys semi_nude, clothed and gap. Each holds a dictionary with estimate, low and high.
        """
        return self.pairs.summary(values, self.inference, bounds)

    def summarise_arms(self, names: list[str]) -> dict[str, dict]:
        """Compute mean accuracy and mean R (log-probability of the true emotion, nats) of some arms, with intervals.

        Two entries are added: `bust_greyed` and `face_greyed`. They give the results without an edit on images whose
        bust or face is greyed out.

        names: names of the arms.
        Returns nested dictionaries. The keys are, from the outside in:
            accuracy, R                the endpoint
            name of an arm             as in `names`, and `bust_greyed`, `face_greyed`
            semi_nude, clothed, gap    gap: clothed minus semi-nude
            estimate, low, high        mean over pairs, and its interval over women
        """
        shown = {name: self.arms.endpoints(name) for name in names}
        shown |= {f"{region}_greyed": found.endpoints("original") for region, found in self.greyed.items()}
        return {
            endpoint: {name: self.summarise(values[endpoint], bounds) for name, values in shown.items()}
            for endpoint, bounds in ENDPOINTS.items()
        }

    def reliance(self, arm: str, region: str) -> dict[str, np.ndarray]:
        """Compute how far an arm relies on a region: the change of each endpoint when the region is greyed out.

        arm: name of an arm that was also run with the region greyed out.
        region: `bust` or `face`.
        Returns the keys `accuracy` and `R` (log-probability of the true emotion, nats). Each holds one change per
        image, in the order of `self.pairs.rows`: the value with the region greyed out minus the value without. A
        change above 0 means that the region misleads the readout. A change below 0 means that the readout needs it.
        """
        whole, without = self.arms.endpoints(arm), self.greyed[region].endpoints(arm)
        return {endpoint: without[endpoint] - whole[endpoint] for endpoint in ENDPOINTS}

    def summarise_reliance(self, arm: str) -> dict[str, dict]:
        """Compute the mean reliance of one arm on each region, with intervals.

        Reliance is the value of an endpoint with the region greyed out minus its value without.

        arm: name of an arm that was also run with the regions greyed out.
        Returns nested dictionaries. The keys are, from the outside in:
            bust, face                 the region
            accuracy, R                the endpoint; R is the log-probability of the true emotion, nats
            semi_nude, clothed, gap    gap: clothed minus semi-nude
            estimate, low, high        mean over pairs, and its interval over women
        """
        return {
            region: {
                endpoint: self.summarise(change, difference_bounds(ENDPOINTS[endpoint]))
                for endpoint, change in self.reliance(arm, region).items()
            }
            for region in self.greyed
        }

    def judge_edit(self, controls: pd.DataFrame) -> dict[str, dict]:
        """Judge the edit: compare the arm `edited` with `original`, and with edits of random sets of latents.

        R is the log-probability of the true emotion, nats. Reliance is R with the bust greyed out minus R without.

        controls: a row per random set, with its results when it is edited. Columns, all means over images of the losing
            condition: R_gain, accuracy_gain, and bust_reliance_R (reliance after the edit). No row if there are no
            random sets that are like the edited set.
        Returns the keys accuracy and R, each with:
            gain                      rise in the losing condition, with interval
            cost                      fall in the other condition, with interval
            share_of_gap_recovered    gain / gap (other minus losing condition) before; absent if gap <= 0
            p_random_sets             p-value of the gain against the random sets
            best_random_set           largest gain of a random set
        and the key bust_reliance, on images of the losing condition, with:
            fall                              reliance before the edit minus reliance after, with interval
            p_random_sets, best_random_set    p-value of this fall; largest fall of a random set
        """
        found: dict[str, dict] = {}
        losing, other = self.losing, OTHER_CONDITION[self.losing]
        for endpoint, bounds in ENDPOINTS.items():
            before, after = (self.pairs.split(self.arms.endpoints(arm)[endpoint]) for arm in BEFORE_AND_AFTER)
            change = difference_bounds(bounds)
            gain = self.pairs.interval(after[losing] - before[losing], self.inference, change)
            cost = self.pairs.interval(before[other] - after[other], self.inference, change)
            gap = float(paired.gap(before, losing).mean())
            found[endpoint] = {
                "gain": gain.as_metrics(),
                "cost": cost.as_metrics(),
                **({"share_of_gap_recovered": gain.estimate / gap} if gap > 0 else {}),
                **against_controls(gain.estimate, controls[f"{endpoint}_gain"].to_numpy()),
            }
        relied = [self.pairs.split(self.reliance(arm, "bust")["R"])[losing] for arm in BEFORE_AND_AFTER]
        fall = self.pairs.interval(relied[0] - relied[1], self.inference)
        falls = relied[0].mean() - controls["bust_reliance_R"].to_numpy()
        return found | {"bust_reliance": {"fall": fall.as_metrics(), **against_controls(fall.estimate, falls)}}

    def guardrails(self, n_emotions: int) -> dict[str, float]:
        """Compute checks that must hold for any edit, and how far the edit moves the image embeddings.

        n_emotions: number of emotions that the readout chooses from.
        Returns:
            cosine_to_original_semi_nude       mean cosine of edited and original embedding, on semi-nude images
            cosine_to_original_clothed         the same, on clothed images
            error_kept_largest_R_change        largest |change of R| of an image if no latent is edited: about 0
            edited_patches_largest_R_change    largest |change of R| of an image under the edit at patches only. About
                                               0 if the SAE reads the last block
            readout_skill                      accuracy without an edit in the condition read better, rescaled: chance
                                               is 0, all correct is 1
        R is the log-probability of the true emotion, nats.
        """
        cosine, before = self.pairs.split(self.arms.of_arm("edited").cosine), self.arms.of_arm("original")
        correct = self.pairs.split(before.correct)

        def largest_change(arm: str) -> float:
            return float(np.abs(self.arms.of_arm(arm).R - before.R).max())

        return {
            **{f"cosine_to_original_{condition}": float(cosine[condition].mean()) for condition in CONDITIONS},
            "error_kept_largest_R_change": largest_change("error_kept"),
            "edited_patches_largest_R_change": largest_change("edited_patches"),
            "readout_skill": readout.skill(max(float(x.mean()) for x in correct.values()), n_emotions),
        }


def against_controls(effect: float, controls: np.ndarray) -> dict[str, float]:
    """Compare the effect of the edit with the effects of edits of random sets of latents.

    effect: the effect of the edit under test. A larger effect is a stronger one.
    controls: the effect of each random set.
    Returns the keys:
        p_random_sets      (1 + number of random sets with at least this effect) / (1 + number of random sets)
        best_random_set    largest effect of a random set
    Returns no key if there are no random sets.
    """
    if not len(controls):
        return {}
    return {"p_random_sets": control_p(effect, controls), "best_random_set": float(controls.max())}

"""All arms of the causal test, one line each: what the residual stream becomes at the splice (`ARMS`).

`ARMS` is in the order of tables and figures. An arm is a function from the tokens of a batch of images to the tokens
that go on. The splice is the place after the block whose output the chosen SAE reads. A twin shows the same woman with
the same expression in the other condition (clothed or semi-nude).

Arms that project means out need labels of what to remove, and no SAE. They stand beside the edit as baselines.
To add an arm, write its builder and add its line to `ARMS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from stages.core import schema
from stages.core.ablation.noise import matched_noise
from stages.core.latents import error_kept_edits
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.selection import Selection
from stages.core.latents.spliced_clip import Arm, ImageBatch, SplicedClip, original
from stages.core.paired import Pairs
from stages.core.run.labels import OTHER_CONDITION, PLANTED, SEMI_NUDE
from stages.core.store import Store

SHARES = tuple(np.arange(20, 0, -1) / 20)  # of what a baseline does, the largest first


@dataclass(frozen=True)
class ArmInputs:
    """What arms are built from. An arm is an intervention on CLIP's residual stream after one block.

    spliced: CLIP with the chosen SAE after this block, and the images.
    chosen: what the stage `select_sae` chose: the SAE, and the latents to edit.
    edit: the edit in params.yaml: its kind, the tokens in its scope, and what it may cost.
    seed: seed of the arms that draw at random.
    """

    spliced: SplicedClip
    chosen: Selection
    edit: schema.Edit
    seed: int

    @property
    def discovery_images(self) -> pd.DataFrame:
        """Images of discovery women, as rows of the data set's table. The latents to edit are chosen on these women."""
        images = self.spliced.data.table
        return images[images["split"] == "discovery"]

    @property
    def planted(self) -> bool:
        """Whether the data set has a planted bias.

        Then the data set's table has the column `colour` (colour of the top), and the bias follows this colour.
        """
        return PLANTED in self.spliced.data.table


Builder = Callable[[ArmInputs], Arm]


@dataclass(frozen=True)
class ArmEntry:
    """One arm of the list `ARMS`: an intervention on the residual stream.

    build: the function that builds the arm.
    """

    build: Builder
    what: str
    """What the tokens x become, in words."""
    at_last_block: bool = False
    """Whether the arm acts after the last block, whatever the layer of the chosen SAE."""
    planted_only: bool = False
    """Whether the arm needs the label that a planted bias follows. Real photographs have no such label."""
    shown: bool = True
    """Whether the arm stands in the report. The arm `error_kept` does not: it only checks that the edit's formula
    leaves x unchanged if no latent is edited."""
    without_edit: bool = False
    """Whether the arm says something if no latent is edited. The others are then equal to the original, or have nothing
    to be compared with."""


def build_arms(inputs: ArmInputs, *, at_last_block: bool = False) -> dict[str, Arm]:
    """Build arms of the list `ARMS`. An arm is an intervention on CLIP's residual stream after one block.

    Some arms need the colour of the top, which only images with a planted bias have. For other images, these arms are
    left out.

    inputs: CLIP with the chosen SAE, the latents to edit, the edit of params.yaml, and a seed.
    at_last_block: True builds only the arms that act after the last block. False builds only the other arms, which act
        after the block that the chosen SAE reads.
    Returns arms by name, in the order of `ARMS`.
    """
    entries = {name: entry for name, entry in ARMS.items() if entry.at_last_block == at_last_block}
    return {name: entry.build(inputs) for name, entry in entries.items() if inputs.planted or not entry.planted_only}


def at_last_block(inputs: ArmInputs, last: Store) -> ArmInputs:
    """Return a copy of `inputs` whose arms act after the last block of CLIP's vision tower.

    inputs: CLIP with the chosen SAE, the latents to edit, the edit of params.yaml, and a seed.
    last: store of the activations after the last block.
    """
    return replace(inputs, spliced=replace(inputs.spliced, layer=inputs.spliced.clip.n_layers, activations=last))


def error_kept(inputs: ArmInputs) -> Arm:
    """Build the arm that edits no latent: x + D(f) - D(f), at every token x.

    f are the activations of the latents at x. D is the SAE's decoder.
    The arm should return x unchanged. It checks that the edit's formula changes nothing if no latent is edited.

    inputs: CLIP with the chosen SAE, the latents to edit, the edit of params.yaml, and a seed.
    """
    nothing = LatentEdit(latents=torch.tensor([], dtype=torch.long))
    return inputs.spliced.edit_arm(nothing, inputs.edit.scope)


def noise(inputs: ArmInputs) -> Arm:
    """Build the arm that adds a random vector to each token.

    The vector has the norm of the SAE's reconstruction error at this token.

    inputs: CLIP with the chosen SAE, the latents to edit, the edit of params.yaml, and a seed.
    """
    return matched_noise(inputs.spliced.reconstructed, inputs.seed)


def random_direction(inputs: ArmInputs) -> Arm:
    """Build the arm that adds a random vector to each token.

    The vector has the norm of the change that the edit under test makes at this token.

    inputs: CLIP with the chosen SAE, the latents to edit, the edit of params.yaml, and a seed.
    """
    return matched_noise(edited(inputs), inputs.seed)


def difference_in_means(inputs: ArmInputs) -> Arm:
    """Build the arm that projects one direction out of every token: mean of semi-nude minus mean of clothed images.

    The means are over discovery images: images of the women on whom the latents are chosen. The class token has its own
    direction, from the class tokens of the images. All patches share one, from each image's mean over patches.

    inputs: CLIP with the chosen SAE, the latents to edit, the edit of params.yaml, and a seed.
    """
    return means_removed(inputs.spliced, inputs.discovery_images["condition"])


def colour_subspace(inputs: ArmInputs) -> Arm:
    """Build the arm that projects the subspace of the top's colour, which a planted bias follows, out of every token.

    Each colour has a mean: the mean activation of the semi-nude discovery images with this colour. The differences
    between these means span the subspace. Discovery images show the women on whom the latents are chosen. The class
    token has its own subspace, from the class tokens of the images. All patches share one, from each image's mean over
    patches.

    inputs: CLIP with the chosen SAE, the latents to edit, the edit of params.yaml, and a seed.
    Raises KeyError if the images have no column `colour`.
    """
    images = inputs.discovery_images
    return means_removed(inputs.spliced, images.loc[images["condition"] == SEMI_NUDE, PLANTED])


def colour_subspace_within_cost(inputs: ArmInputs) -> Arm:
    """Build the arm that removes a part of the subspace of the top's colour (`colour_subspace`).

    The part is the largest one whose cost is at most `inputs.edit.max_cost`. The cost is the loss of emotion accuracy
    on discovery images in the condition read better. Discovery images show the women on whom the latents are chosen.

    inputs: CLIP with the chosen SAE, the latents to edit, the edit of params.yaml, and a seed.
    Raises KeyError if the images have no column `colour`.
    """
    return within_cost(inputs, colour_subspace(inputs))


def means_removed(spliced: SplicedClip, labels: pd.Series) -> Arm:
    """Build the arm that projects the subspace in which the means of the labels differ out of every token.

    For each label, the activations of the images with this label are averaged. The differences of these means span the
    subspace. The class token has its own subspace, computed from class tokens. The patches share another subspace,
    computed from each image's mean over patches.

    spliced: CLIP, the block after which the arm acts, and the stored activations after this block.
    labels: a label for each image. The index holds the row number of the image in the data set's table. With two
        labels the subspace is one direction, the difference in means.
    """

    def tokens_by_kind(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        tokens = spliced.audit.tokens(rows)
        return tokens[:, 0], tokens[:, 1:].mean(1)

    subspaces = []
    for values in map(torch.from_numpy, spliced.compute_by_batch(labels.index.to_numpy(), tokens_by_kind)):
        means = torch.stack([values[np.flatnonzero(labels == label)].mean(0) for label in sorted(set(labels))])
        centre = means.mean(0)
        basis = torch.linalg.svd(means - centre, full_matrices=False).Vh[: len(means) - 1]
        subspaces.append((centre.to(spliced.clip.device), basis.to(spliced.clip.device)))

    def apply(batch: ImageBatch) -> Tensor:
        kinds = (batch.tokens[:, :1], batch.tokens[:, 1:])
        return torch.cat([x - (x - c) @ basis.T @ basis for x, (c, basis) in zip(kinds, subspaces, strict=True)], dim=1)

    return apply


def partly(arm: Arm, share: float) -> Arm:
    """Return an arm that applies only a part of another arm's change: x + share * (arm(x) - x), at every token x.

    arm: the other arm, an intervention on the residual stream.
    share: the part, between 0 and 1.
    """
    return lambda batch: batch.tokens + share * (arm(batch) - batch.tokens)


def within_cost(inputs: ArmInputs, arm: Arm) -> Arm:
    """Return an arm that applies only a share of another arm's change: the largest share that is not too costly.

    The shares 1, 0.95, 0.9, ..., 0.05 and 0 are tried. Share 0 changes nothing. The cost of a share is its loss of
    emotion accuracy on discovery images in the condition read better. Discovery images show the women on whom the
    latents are chosen. The cost may be at most `inputs.edit.max_cost`.

    inputs: CLIP with the chosen SAE, the latents to edit, the edit of params.yaml, and a seed.
    arm: the other arm, an intervention on the residual stream.
    """
    pairs = Pairs.from_images(inputs.spliced.data.table, "discovery")
    other = pairs.table[OTHER_CONDITION[inputs.chosen.judged]].to_numpy()
    tried = [partly(arm, share) for share in (*SHARES, 0.0)]
    accuracy = inputs.spliced.outcomes(other, tried).correct.mean(1)
    return next(arm for arm, found in zip(tried, accuracy, strict=True) if found >= accuracy[-1] - inputs.edit.max_cost)


def ranked_once(inputs: ArmInputs) -> Arm:
    """Build the arm that edits the first k latents of a ranking made once (`Selection.ranked_once`).

    The ranking starts with the latents that lower the log-probability of the true emotion most in the condition that
    CLIP reads worse, compared with the other condition. It is made in the model without an edit. k is the number of
    latents in `inputs.chosen`, so that this arm and the edit under test change equally many latents.

    inputs: CLIP with the chosen SAE, the latents to edit, the edit of params.yaml, and a seed.
    """
    first = inputs.chosen.ranked_once[: len(inputs.chosen.latents)]
    return inputs.spliced.selected_edit_arm(inputs.chosen, inputs.edit, first)


def swapped(inputs: ArmInputs) -> Arm:
    """Build the arm that gives each chosen latent its activation at the same token of the twin image.

    The twin shows the same woman with the same expression in the other condition (clothed or semi-nude). Suppose the
    chosen latents harm the readout in one condition. Then this arm should harm it in the other.

    inputs: CLIP with the chosen SAE, the latents to edit, the edit of params.yaml, and a seed.
    """
    latents = torch.tensor(inputs.chosen.latents, device=inputs.spliced.clip.device)
    edit = LatentEdit(latents=latents, kind="patch")

    def apply(batch: ImageBatch) -> Tensor:
        return error_kept_edits.edited(batch.tokens, inputs.spliced.sae, edit, twin=batch.twin)

    return apply


def edited(inputs: ArmInputs) -> Arm:
    """Build the arm under test: the edit that params.yaml describes, applied to the chosen latents.

    inputs: CLIP with the chosen SAE, the latents to edit, the edit of params.yaml, and a seed.
    """
    return inputs.spliced.selected_edit_arm(inputs.chosen, inputs.edit)


def edited_in(scope: schema.EditScope) -> Builder:
    """Return a function that takes `ArmInputs` and builds an arm: the edit of params.yaml, at some tokens only.

    scope: the tokens to edit: `all`, `cls` (class token), `patches`, `bust` (patches inside the bust) or `not_bust`
        (patches outside the bust).
    """

    def build(inputs: ArmInputs) -> Arm:
        narrowed = inputs.edit.model_copy(update={"scope": scope})
        return inputs.spliced.selected_edit_arm(inputs.chosen, narrowed)

    return build


ARMS: dict[str, ArmEntry] = {
    "original": ArmEntry(lambda inputs: original, "x", without_edit=True),
    "error_kept": ArmEntry(error_kept, "the edit's arithmetic with nothing edited: equals the original", shown=False),
    "reconstructed": ArmEntry(
        lambda inputs: inputs.spliced.reconstructed, "the SAE's reconstruction of x", without_edit=True
    ),
    "noise": ArmEntry(noise, "x + a random vector as long as the reconstruction error", without_edit=True),
    "random_direction": ArmEntry(random_direction, "x + a random vector as long as the edit's change"),
    "difference_in_means": ArmEntry(difference_in_means, "x without the direction between the conditions' means"),
    "colour_subspace": ArmEntry(colour_subspace, "x without the subspace of the colours' means", planted_only=True),
    "colour_subspace_at_last_block": ArmEntry(
        colour_subspace, "the colours' subspace removed after the last block", at_last_block=True, planted_only=True
    ),
    "colour_subspace_within_cost": ArmEntry(
        colour_subspace_within_cost,
        "the same, removed in part: the other condition loses no more than the edit may cost",
        at_last_block=True,
        planted_only=True,
    ),
    "ranked_once": ArmEntry(ranked_once, "as many latents edited, ranked once by their effect"),
    "swapped": ArmEntry(swapped, "the edited latents as in the other twin"),
    "edited": ArmEntry(edited, "the edit of params.yaml"),
    "edited_cls": ArmEntry(edited_in("cls"), "the edit at the class token only"),
    "edited_patches": ArmEntry(edited_in("patches"), "the edit at patches only"),
    "edited_bust": ArmEntry(edited_in("bust"), "the edit at patches in the bust only"),
    "edited_not_bust": ArmEntry(edited_in("not_bust"), "the edit at patches outside the bust only"),
}

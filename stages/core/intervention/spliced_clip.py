"""CLIP with an SAE spliced in after one block, and audit images run through it from there.

Activations up to the splice come from the store, so an arm costs only the blocks after it. Ranks share the batches.

An arm is a function from the tokens of a batch to the tokens that go on. Arms that several stages use stand here:
`original`, `SplicedClip.reconstructed` and the edit itself. `ablation/arms.py` lists all arms of the causal test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from stages.core import schema, store
from stages.core.clip import readout
from stages.core.clip.readout import Readout
from stages.core.clip.vit import FrozenClip, replaced_residual
from stages.core.data.dataset import Dataset
from stages.core.intervention import error_kept_edits
from stages.core.intervention.error_kept_edits import LatentEdit
from stages.core.intervention.selection import Selection
from stages.core.paired import Pairs
from stages.core.run.compute import ALONE, Ranks
from stages.core.run.labels import CLOTHED
from stages.core.sae import JumpReLUSAE
from stages.core.store import Store


@dataclass(frozen=True)
class AuditTokens:
    """What is known of each image at the splice, by its row: tokens, twins, bust coverage."""

    data: Dataset
    activations: Store
    grid: tuple[int, int]
    device: torch.device

    def tokens(self, rows: np.ndarray) -> Float[Tensor, "n token d_in"]:
        """Residual stream at the splice, on the device."""
        return torch.from_numpy(self.activations.read(rows)).to(self.device)

    @cached_property
    def twin(self) -> np.ndarray:
        """Row of each image's twin in the other condition; its own row where it has no twin."""
        twin, pairs = np.arange(len(self.data.table)), Pairs.from_images(self.data.table)
        twin[pairs.semi_nude], twin[pairs.clothed] = pairs.clothed, pairs.semi_nude
        return twin

    @cached_property
    def clothed_twin(self) -> np.ndarray:
        """Row of each image's clothed twin; its own row where it is clothed or has no twin."""
        clothed = (self.data.table["condition"] == CLOTHED).to_numpy()
        return np.where(clothed, np.arange(len(self.twin)), self.twin)

    def bust(self, rows: np.ndarray) -> Float[np.ndarray, "n gh gw"]:
        """Share of each patch inside the bust mask."""
        return self.data.coverage("bust", rows, self.grid)


@dataclass(frozen=True)
class ImageBatch:
    """Some images at the splice, with all that an arm may ask for. The first axis is the image."""

    audit: AuditTokens
    rows: np.ndarray
    tokens: Float[Tensor, "n token d_in"]

    @cached_property
    def twin(self) -> Float[Tensor, "n token d_in"]:
        """Tokens of the twin in the other condition."""
        return self.audit.tokens(self.audit.twin[self.rows])

    @cached_property
    def clothed_twin(self) -> Float[Tensor, "n token d_in"]:
        """Tokens of the clothed twin."""
        return self.audit.tokens(self.audit.clothed_twin[self.rows])

    @cached_property
    def bust(self) -> Float[np.ndarray, "n gh gw"]:
        """Share of each patch inside the bust mask."""
        return self.audit.bust(self.rows)


Arm = Callable[[ImageBatch], Float[Tensor, "n token d_in"]]
"""What the tokens of a batch become."""
ImageSource = Callable[[np.ndarray], UInt8[np.ndarray, "n s s 3"]]
"""A function that gives other pixels for the images in some rows, such as those with a region greyed out."""


def original(batch: ImageBatch) -> Float[Tensor, "n token d_in"]:
    """The arm that changes nothing."""
    return batch.tokens


@dataclass(frozen=True)
class Outcomes:
    """What came out of several arms, arrays [arm, image], or of one arm, arrays [image]."""

    R: Float[np.ndarray, "*arm n"]
    """Log-probability of the true emotion, nats."""
    correct: Float[np.ndarray, "*arm n"]
    """1 where the most probable emotion is the true one, else 0."""
    cosine: Float[np.ndarray, "*arm n"]
    """Cosine of the embedding with the original embedding."""


@dataclass(frozen=True)
class SplicedClip:
    """CLIP with an SAE spliced in after block `layer` (counted from 1)."""

    clip: FrozenClip
    sae: JumpReLUSAE
    layer: int
    data: Dataset
    activations: Store
    batch_size: int
    ranks: Ranks = ALONE

    @classmethod
    def from_selection(
        cls,
        chosen: Selection,
        clip: FrozenClip,
        data: Dataset,
        activations_dpath: Path,
        batch_size: int,
        ranks: Ranks = ALONE,
    ) -> SplicedClip:
        """Splice the chosen SAE in. Raises ModelError if the model lacks its layer, StoreError without its store."""
        clip.check_layer(chosen.layer)
        activations = store.open(activations_dpath / f"l{chosen.layer}.zarr", data)
        return cls(clip, chosen.sae.to(clip.device), chosen.layer, data, activations, batch_size, ranks)

    @cached_property
    def audit(self) -> AuditTokens:
        """Tokens, twins and masks of the images."""
        return AuditTokens(self.data, self.activations, self.clip.grid, self.clip.device)

    @cached_property
    def readout(self) -> Readout:
        """The emotion prompts as this model sees them."""
        return Readout.from_prompts(self.clip, list(self.data.prompts.values()))

    def slices(self, rows: np.ndarray) -> Iterator[slice]:
        """Consecutive slices of `rows`, each of one batch."""
        for start in range(0, len(rows), self.batch_size):
            yield slice(start, start + self.batch_size)

    @cached_property
    def _text_of_prompt(self) -> dict[str, Tensor]:
        prompts = sorted(set(self.data.table["prompt"].iloc[self.data.audit_rows()]))
        return dict(zip(prompts, self.clip.text(prompts), strict=True))

    def own_text(self, rows: np.ndarray) -> Float[Tensor, "n embed"]:
        """Unit-norm embedding of each audit image's own prompt."""
        return torch.stack([self._text_of_prompt[prompt] for prompt in self.data.table["prompt"].iloc[rows]])

    def batches(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Float[Tensor, "n token d_in"]]]:
        """Rows and tokens of each batch, in order."""
        for batch in self.slices(rows):
            yield rows[batch], self.audit.tokens(rows[batch])

    def truth(self, rows: np.ndarray) -> Int[Tensor, " n"]:
        """Index of each image's true emotion."""
        return torch.from_numpy(self.data.emotion_index(rows)).to(self.clip.device)

    def gradient(self, rows: np.ndarray, tokens: Float[Tensor, "n token d_in"]) -> Float[Tensor, "n token d_in"]:
        """dR/dx at the splice, nats per unit of activation."""
        return readout.gradient(self.clip, self.readout, tokens, self.truth(rows), self.layer)

    def compute_by_batch(
        self, rows: np.ndarray, compute: Callable[[np.ndarray], tuple[Tensor, ...]]
    ) -> tuple[np.ndarray, ...]:
        """Apply `compute` to the rows of each batch and join its tensors (first axis: image), on every rank."""
        batches = list(self.slices(rows))
        mine = batches[self.ranks.share(len(batches))]
        found = [compute(rows[batch]) for batch in mine or batches[:1]]  # a rank without a batch learns the shapes
        joined = (torch.cat(values) if mine else values[0][:0] for values in zip(*found, strict=True))
        return tuple(self.ranks.joined(values).cpu().numpy() for values in joined)

    def batch(self, rows: np.ndarray, pixels: ImageSource | None = None) -> ImageBatch:
        """The images `rows` at the splice: from the store, or computed from other `pixels` of these images."""
        if pixels is None:
            return ImageBatch(self.audit, rows, self.audit.tokens(rows))
        _, kept = self.clip.residuals(self.clip.pixels(pixels(rows)), [self.layer])
        return ImageBatch(self.audit, rows, kept[self.layer].float())

    @torch.no_grad()
    def embeddings(self, rows: np.ndarray, arm: Arm = original) -> Float[np.ndarray, "n embed"]:
        """Unit-norm image embeddings with the arm in place."""

        def embed(some: np.ndarray) -> tuple[Tensor]:
            return (self.clip.tail(arm(self.batch(some)), self.layer),)

        return self.compute_by_batch(rows, embed)[0]

    def reconstructed(self, batch: ImageBatch) -> Float[Tensor, "n token d_in"]:
        """The arm in which the SAE's reconstruction replaces the residual stream."""
        return self.sae(batch.tokens)

    def edit_arm(self, edit: LatentEdit, scope: schema.EditScope) -> Arm:
        """The arm that applies an edit to the tokens in scope, with the reconstruction error kept."""

        def apply(batch: ImageBatch) -> Tensor:
            x = batch.tokens
            bust = batch.bust if scope in ("bust", "not_bust") else None
            where = error_kept_edits.tokens_in_scope(scope, len(x), x.shape[1], bust).to(x.device)
            twin = batch.clothed_twin if edit.kind == "patch" else None
            return error_kept_edits.edited(x, self.sae, edit, where=where, twin=twin)

        return apply

    def selected_edit_arm(
        self, chosen: Selection, edit: schema.Edit, latents: Int[np.ndarray, " k"] | None = None
    ) -> Arm:
        """The arm of the edit in params.yaml, on the latents chosen to edit or on others of the same SAE."""
        latents = chosen.latents if latents is None else latents
        return self.edit_arm(LatentEdit.from_params(edit, latents, chosen.means, self.clip.device), edit.scope)

    @contextmanager
    def arm_in_place(self, arm: Arm, rows: np.ndarray) -> Iterator[None]:
        """While open, a forward pass of the images `rows` from their pixels has the arm in place."""

        def change(tokens: Tensor) -> Tensor:
            return arm(ImageBatch(self.audit, rows, tokens))

        with replaced_residual(self.clip.visual, self.layer, change):
            yield

    @torch.no_grad()
    def outcomes(self, rows: np.ndarray, arms: list[Arm], pixels: ImageSource | None = None) -> Outcomes:
        """Run every arm over the images `rows`, from the store or from other `pixels` of these images."""

        def run(some: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
            batch, truth = self.batch(some, pixels), self.truth(some)
            unedited = self.clip.tail(batch.tokens, self.layer)
            found = [self._judge(self.clip.tail(arm(batch), self.layer), truth, unedited) for arm in arms]
            R, correct, cosine = (torch.stack(values, 1).double() for values in zip(*found, strict=True))
            return R, correct, cosine

        return Outcomes(*(values.T for values in self.compute_by_batch(rows, run)))

    def _judge(self, embedded: Tensor, truth: Tensor, unedited: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (
            self.readout.score(embedded, truth),
            self.readout.correct(embedded, truth),
            (embedded * unedited).sum(-1),
        )

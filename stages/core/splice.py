"""CLIP with an SAE spliced in after one block, and the audit set run through it from there.

Activations up to the splice are read from the store, so an arm costs only the blocks after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stages.core import intervene, readout
from stages.core.dataset import CLOTHED, SEMI_NUDE, Dataset
from stages.core.intervene import Edit
from stages.core.localise import patch_coverage
from stages.core.params import EditScope
from stages.core.readout import Readout
from stages.core.sae import JumpReLUSAE
from stages.core.store import Store
from stages.core.vit import Clip, splicing


@dataclass(frozen=True)
class Batch:
    """Some images at the splice: all an arm may ask for. Arrays and tensors share their first axis, the image."""

    splice: Splice
    rows: np.ndarray
    tokens: Float[Tensor, "n token d_in"]

    @cached_property
    def clothed_twin(self) -> Float[Tensor, "n token d_in"]:
        """Tokens of the clothed twin (of itself, where the image is clothed)."""
        return self.splice.tokens(self.splice.clothed_twin[self.rows])

    @cached_property
    def twin(self) -> Float[Tensor, "n token d_in"]:
        """Tokens of the twin in the other condition (of itself, where there is none)."""
        return self.splice.tokens(self.splice.twin[self.rows])

    @cached_property
    def bust(self) -> Float[np.ndarray, "n gh gw"]:
        """Share of each patch inside the bust mask."""
        return patch_coverage(self.splice.data.mask("bust", self.rows), self.splice.clip.grid)


Arm = Callable[[Batch], Float[Tensor, "n token d_in"]]
"""What the tokens become."""


def original(batch: Batch) -> Float[Tensor, "n token d_in"]:
    """The arm in which nothing is changed."""
    return batch.tokens


@dataclass(frozen=True)
class Outcomes:
    """What came out, arm by arm: arrays [arm, image]; of one arm, [image]."""

    R: Float[np.ndarray, "*arm n"]
    """Log-probability of the true emotion, nats."""
    correct: Float[np.ndarray, "*arm n"]
    cosine: Float[np.ndarray, "*arm n"]
    """Of the embedding with the original one."""


@dataclass(frozen=True)
class Splice:
    """See the module docstring."""

    clip: Clip
    sae: JumpReLUSAE
    layer: int
    data: Dataset
    activations: Store
    batch_size: int

    @cached_property
    def readout(self) -> Readout:
        """The emotion prompts as this model sees them."""
        return Readout.of(self.clip, list(self.data.prompts.values()))

    @cached_property
    def twin(self) -> np.ndarray:
        """Row of each image's twin in the other condition: its own, where it has none."""
        twin, pairs = np.arange(len(self.data.table)), self.data.pairs()
        twin[pairs[SEMI_NUDE]], twin[pairs[CLOTHED]] = pairs[CLOTHED], pairs[SEMI_NUDE]
        return twin

    @cached_property
    def clothed_twin(self) -> np.ndarray:
        """Row of each image's clothed twin: its own, where it is clothed or has none."""
        semi_nude = (self.data.table["condition"] == SEMI_NUDE).to_numpy()
        return np.where(semi_nude, self.twin, np.arange(len(self.twin)))

    def slices(self, rows: np.ndarray) -> Iterator[slice]:
        """Consecutive parts of `rows`, as many images as fit a batch."""
        for start in range(0, len(rows), self.batch_size):
            yield slice(start, start + self.batch_size)

    @cached_property
    def _text_of_prompt(self) -> dict[str, Tensor]:
        prompts = sorted(set(self.data.table["prompt"].iloc[self.data.audit_rows()]))
        return dict(zip(prompts, self.clip.text(prompts), strict=True))

    def own_text(self, rows: np.ndarray) -> Float[Tensor, "n embed"]:
        """Unit-norm embedding of each audit image's own prompt."""
        return torch.stack([self._text_of_prompt[prompt] for prompt in self.data.table["prompt"].iloc[rows]])

    def tokens(self, rows: np.ndarray) -> Float[Tensor, "n token d_in"]:
        """Residual stream at the splice, on the device."""
        return torch.from_numpy(self.activations.read(rows)).to(self.clip.device)

    def batches(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Float[Tensor, "n token d_in"]]]:
        """(rows, tokens), in order."""
        for part in self.slices(rows):
            yield rows[part], self.tokens(rows[part])

    def truth(self, rows: np.ndarray) -> Tensor:
        """Index of the true emotion of each image."""
        return torch.from_numpy(self.data.emotion_index(rows)).to(self.clip.device)

    def gradient(self, rows: np.ndarray, tokens: Tensor) -> Float[Tensor, "n token d_in"]:
        """dR/dx at the splice."""
        return readout.gradient(self.clip, self.readout, tokens, self.truth(rows), self.layer)

    def batch(self, rows: np.ndarray, images: UInt8[np.ndarray, "n s s 3"] | None = None) -> Batch:
        """The images `rows` at the splice, or other pictures of them (with a region hidden, say)."""
        if images is None:
            return Batch(self, rows, self.tokens(rows))
        _, kept = self.clip.residuals(self.clip.pixels(images), [self.layer])
        return Batch(self, rows, kept[self.layer].float())

    @torch.no_grad()
    def embeddings(self, rows: np.ndarray, arm: Arm = original) -> Float[np.ndarray, "n embed"]:
        """Unit-norm image embeddings with the arm in place."""
        batches = (self.batch(rows[part]) for part in self.slices(rows))
        return torch.cat([self.clip.tail(arm(batch), self.layer).cpu() for batch in batches]).numpy()

    def reconstructed(self, batch: Batch) -> Float[Tensor, "n token d_in"]:
        """The arm in which the SAE's reconstruction replaces the residual stream."""
        return self.sae(batch.tokens)

    def arm(self, edit: Edit, scope: EditScope) -> Arm:
        """The arm that applies an edit to the tokens in scope, reconstruction error kept."""

        def apply(batch: Batch) -> Tensor:
            x = batch.tokens
            bust = batch.bust if scope in ("bust", "not_bust") else None
            where = intervene.scope(scope, len(x), x.shape[1], bust).to(x.device)
            twin = batch.clothed_twin if edit.kind == "patch" else None
            return intervene.edited(x, self.sae, edit, where=where, twin=twin)

        return apply

    @contextmanager
    def live(self, arm: Arm, rows: np.ndarray) -> Iterator[None]:
        """While open, a forward pass of the images `rows` from their pixels (or edited pixels) has the arm in place."""
        batch = self.batch(rows)

        def change(tokens: Tensor) -> Tensor:
            return arm(replace(batch, tokens=tokens))

        with splicing(self.clip.visual, self.layer, change):
            yield

    @torch.no_grad()
    def outcomes(
        self, rows: np.ndarray, arms: list[Arm], images: UInt8[np.ndarray, "n s s 3"] | None = None
    ) -> Outcomes:
        """Run every arm over the images `rows`, or over other pictures of them."""
        shape = (len(arms), len(rows))
        R, correct, cosine = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for part in self.slices(rows):
            batch = self.batch(rows[part], None if images is None else images[part])
            truth = self.truth(batch.rows)
            original = self.clip.tail(batch.tokens, self.layer)
            for i, arm in enumerate(arms):
                embedded = self.clip.tail(arm(batch), self.layer)
                R[i, part] = self.readout.score(embedded, truth).cpu().numpy()
                correct[i, part] = self.readout.correct(embedded, truth).cpu().numpy()
                cosine[i, part] = (embedded * original).sum(-1).cpu().numpy()
        return Outcomes(R, correct, cosine)

"""CLIP with an SAE spliced in after one block, and the audit set run through it from there.

Activations up to the splice are read from the store, so an arm costs only the blocks after it. Ranks share the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stages.core import intervene, readout
from stages.core.compute import ALONE, Ranks
from stages.core.dataset import CLOTHED, SEMI_NUDE, Dataset
from stages.core.intervene import Edit
from stages.core.readout import Readout
from stages.core.sae import JumpReLUSAE
from stages.core.sections import EditScope
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
        return self.splice.data.coverage("bust", self.rows, self.splice.clip.grid)


Arm = Callable[[Batch], Float[Tensor, "n token d_in"]]
"""What the tokens become."""
Pictures = Callable[[np.ndarray], UInt8[np.ndarray, "n s s 3"]]
"""Other pictures of the images in some rows, made when they are needed."""


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
    ranks: Ranks = ALONE

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

    def each(self, rows: np.ndarray, compute: Callable[[np.ndarray], tuple[Tensor, ...]]) -> tuple[np.ndarray, ...]:
        """What `compute` gives for a batch of rows (tensors, the image first), for all `rows`, on every rank."""
        parts = list(self.slices(rows))
        mine = parts[self.ranks.share(len(parts))]
        found = [compute(rows[part]) for part in mine or parts[:1]]  # without a batch of its own, to learn the shapes
        joined = (torch.cat(values) if mine else values[0][:0] for values in zip(*found, strict=True))
        return tuple(self.ranks.joined(values).cpu().numpy() for values in joined)

    def batch(self, rows: np.ndarray, pictures: Pictures | None = None) -> Batch:
        """The images `rows` at the splice, or other pictures of them (with a region hidden, say)."""
        if pictures is None:
            return Batch(self, rows, self.tokens(rows))
        _, kept = self.clip.residuals(self.clip.pixels(pictures(rows)), [self.layer])
        return Batch(self, rows, kept[self.layer].float())

    @torch.no_grad()
    def embeddings(self, rows: np.ndarray, arm: Arm = original) -> Float[np.ndarray, "n embed"]:
        """Unit-norm image embeddings with the arm in place."""

        def embed(some: np.ndarray) -> tuple[Tensor]:
            return (self.clip.tail(arm(self.batch(some)), self.layer),)

        return self.each(rows, embed)[0]

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

        def change(tokens: Tensor) -> Tensor:
            return arm(Batch(self, rows, tokens))

        with splicing(self.clip.visual, self.layer, change):
            yield

    @torch.no_grad()
    def outcomes(self, rows: np.ndarray, arms: list[Arm], pictures: Pictures | None = None) -> Outcomes:
        """Run every arm over the images `rows`, or over other pictures of them."""

        def run(some: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
            batch, truth = self.batch(some, pictures), self.truth(some)
            original = self.clip.tail(batch.tokens, self.layer)
            found = [self._judge(self.clip.tail(arm(batch), self.layer), truth, original) for arm in arms]
            R, correct, cosine = (torch.stack(values, 1).double() for values in zip(*found, strict=True))
            return R, correct, cosine

        return Outcomes(*(values.T for values in self.each(rows, run)))

    def _judge(self, embedded: Tensor, truth: Tensor, original: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (
            self.readout.score(embedded, truth),
            self.readout.correct(embedded, truth),
            (embedded * original).sum(-1),
        )

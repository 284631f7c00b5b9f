"""CLIP with an SAE spliced in after one block, and audit images run through it from there.

Activations up to the splice come from the store, so an arm costs only the blocks after it. Ranks share the batches.

The splice is the place after that block. An arm is a function from the tokens of a batch at the splice to the tokens
that go on; R is the log-probability of an image's true emotion, in nats. Arms that several stages use stand here:
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
from stages.core.clip.readout import Readout, embedded_each
from stages.core.clip.vit import FrozenClip, replaced_residual
from stages.core.data.dataset import Dataset
from stages.core.latents import error_kept_edits
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.selection import Selection
from stages.core.paired import Pairs
from stages.core.run.compute import ALONE, Ranks
from stages.core.run.labels import CLOTHED
from stages.core.run.progress import bar
from stages.core.sae import JumpReLUSAE
from stages.core.store import Store


@dataclass(frozen=True)
class AuditTokens:
    """The residual stream of the data set's images after the block that the SAE reads, and their twins and bust masks.

    data: the data set, with the table of images.
    activations: the stored residual stream after that block.
    grid: rows and columns of patches in an image.
    `rows` are row numbers of images in the data set's table, and also places in the activation store. The twin of an
    image shows the same woman with the same expression in the other condition.
    """

    data: Dataset
    activations: Store
    grid: tuple[int, int]
    device: torch.device

    def tokens(self, rows: np.ndarray) -> Float[Tensor, "n token d_in"]:
        """Return the stored residual stream of some images, on the device. Token 0 is the class token.

        rows: row numbers of the images in the data set's table.
        """
        return torch.from_numpy(self.activations.read(rows)).to(self.device)

    @cached_property
    def twin(self) -> np.ndarray:
        """Row number of each image's twin, for all images of the data set's table, in its order.

        The twin shows the same woman with the same expression in the other condition (clothed or semi-nude). An image
        without a twin has its own row number.
        """
        twin, pairs = np.arange(len(self.data.table)), Pairs.from_images(self.data.table)
        twin[pairs.semi_nude], twin[pairs.clothed] = pairs.clothed, pairs.semi_nude
        return twin

    @cached_property
    def clothed_twin(self) -> np.ndarray:
        """Row number of each image's clothed twin, for all images of the data set's table, in its order.

        The clothed twin shows the same woman with the same expression. A clothed image, or an image without
        a twin, has its own row number.
        """
        clothed = (self.data.table["condition"] == CLOTHED).to_numpy()
        return np.where(clothed, np.arange(len(self.twin)), self.twin)

    def bust(self, rows: np.ndarray) -> Float[np.ndarray, "n gh gw"]:
        """Compute the share of each patch's area that lies inside the bust mask, from 0 to 1.

        rows: row numbers of the images in the data set's table.
        Returns an array [image, gh, gw], with gh rows and gw columns of patches.
        """
        return self.data.coverage("bust", rows, self.grid)


TokenSource = Callable[[np.ndarray], Float[Tensor, "n token d_in"]]
"""A function that takes row numbers and gives the residual stream of these images at the splice."""


@dataclass(frozen=True)
class ImageBatch:
    """Some images at the splice (the block after which the model is changed), with all that an arm may ask for.

    An arm is an intervention on the residual stream. The first axis of every array is the image.

    audit: which image is whose twin, and the bust masks.
    rows: row numbers of the images in the data set's table.
    tokens: residual stream of the images at the splice.
    read: a function from row numbers to the tokens of other images, with pixels that were changed in the same way as
        those of this batch. Twins are read by it.
    """

    audit: AuditTokens
    rows: np.ndarray
    tokens: Float[Tensor, "n token d_in"]
    read: TokenSource

    @cached_property
    def twin(self) -> Float[Tensor, "n token d_in"]:
        """Tokens of each image's twin. If a region is greyed out in the images, it is greyed out in the twins, too.

        The twin shows the same woman with the same expression in the other condition. An image without a twin has its
        own tokens.
        """
        return self.read(self.audit.twin[self.rows])

    @cached_property
    def clothed_twin(self) -> Float[Tensor, "n token d_in"]:
        """Tokens of each image's clothed twin (same woman, same expression), changed in the same way as the image.

        A clothed image, or an image without a twin, has its own tokens.
        """
        return self.read(self.audit.clothed_twin[self.rows])

    @cached_property
    def bust(self) -> Float[np.ndarray, "n gh gw"]:
        """Share of each patch's area inside the bust mask, from 0 to 1.

        An image has gh rows and gw columns of patches.
        """
        return self.audit.bust(self.rows)


Arm = Callable[[ImageBatch], Float[Tensor, "n token d_in"]]
"""A function that gives the tokens that replace the residual stream of a batch at the splice."""
ImageSource = Callable[[np.ndarray], UInt8[np.ndarray, "n s s 3"]]
"""A function that takes row numbers and gives other RGB pixels for these images, such as with a region greyed out."""


def original(batch: ImageBatch) -> Float[Tensor, "n token d_in"]:
    """Return the tokens of a batch of images unchanged. This is the arm `original`, which edits nothing."""
    return batch.tokens


@dataclass(frozen=True)
class Outcomes:
    """What CLIP gives for some images under one or several arms (interventions on the residual stream).

    Arrays have the axes [arm, image], or only [image] for one arm.
    """

    R: Float[np.ndarray, "*arm n"]
    """Log-probability of the true emotion, nats."""
    correct: Float[np.ndarray, "*arm n"]
    """1 where the most probable emotion is the true one, else 0."""
    cosine: Float[np.ndarray, "*arm n"]
    """Cosine of the image embedding with the embedding of the same pixels when nothing is changed."""


@dataclass(frozen=True)
class SplicedClip:
    """CLIP with an SAE spliced in after block `layer` (counted from 1), and the images that run through this model.

    activations: the stored residual stream of all images after that block.
    batch_size: number of images in one batch.
    ranks: the processes that share the batches.
    Methods take `rows`: row numbers of images in the data set's table.
    """

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
        """Return CLIP with the SAE that `select_sae` chose, spliced in after the SAE's layer.

        chosen: the selection, with the SAE and its layer. clip: the audited CLIP. data: the data set.
        activations_dpath: folder of the activation stores, one per layer.
        batch_size: number of images in one batch.
        ranks: the processes that share the batches.
        Raises ModelError if the model lacks the layer of the SAE. Raises StoreError if the store of this layer is
        missing or comes from another data set, DamagedError if a shard of it is missing.
        """
        clip.check_layer(chosen.layer)
        activations = store.open(activations_dpath / f"l{chosen.layer}.zarr", data)
        return cls(clip, chosen.sae.to(clip.device), chosen.layer, data, activations, batch_size, ranks)

    @cached_property
    def audit(self) -> AuditTokens:
        """The images at the splice (after block `layer`): their stored tokens, their twins and their bust masks."""
        return AuditTokens(self.data, self.activations, self.clip.grid, self.clip.device)

    @cached_property
    def readout(self) -> Readout:
        """The emotion prompts of the data set, embedded by this model, and its logit scale."""
        return Readout.from_prompts(self.clip, self.data.prompts.values())

    def slices(self, rows: np.ndarray) -> Iterator[slice]:
        """Split `rows` into batches of `batch_size`. The last batch may be shorter.

        rows: row numbers of the images in the data set's table.
        Yields for each batch the slice of `rows` that it takes, in order.
        """
        for start in range(0, len(rows), self.batch_size):
            yield slice(start, start + self.batch_size)

    @cached_property
    def _own_texts(self) -> Float[Tensor, "n embed"]:
        return embedded_each(self.clip, self.data.table["prompt"].tolist())

    def own_text(self, rows: np.ndarray) -> Float[Tensor, "n embed"]:
        """Embed the prompt of each image (column `prompt` of the data set's table).

        rows: row numbers, in the data set's table, of images that belong to a pair.
        Returns unit-norm text embeddings, one per image.
        """
        return self._own_texts[torch.from_numpy(rows)]

    def batches(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Float[Tensor, "n token d_in"]]]:
        """Read the stored tokens of some images (the residual stream after block `layer`), batch by batch.

        rows: row numbers of the images in the data set's table.
        Yields the row numbers and the tokens of each batch, in order.
        """
        for batch in self.slices(rows):
            yield rows[batch], self.audit.tokens(rows[batch])

    def truth(self, rows: np.ndarray) -> Int[Tensor, " n"]:
        """Return the true emotion of each image: its index among `Dataset.emotions`, on the device.

        rows: row numbers of the images in the data set's table.
        """
        return torch.from_numpy(self.data.emotion_index(rows)).to(self.clip.device)

    @property
    def reaching(self) -> slice:
        """The tokens at the splice that reach the embedding: the class token after the last block, all before it."""
        return slice(1) if self.layer == self.clip.n_layers else slice(None)

    def gradient(
        self, tokens: Float[Tensor, "n token d_in"], emotions: Int[Tensor, " n"]
    ) -> Float[Tensor, "n token d_in"]:
        """Compute the gradient dR/dx of R (log-probability of one emotion, nats), per unit of activation.

        tokens: x, the residual stream after the block that the SAE reads; after the last block the class token alone
            is enough (`reaching`).
        emotions: the emotion that R is about, for each image: its index among `Dataset.emotions`.
        Returns dR/dx of each image at each token.
        """
        return readout.gradient(self.clip, self.readout, tokens, emotions, self.layer)

    def compute_by_batch(
        self, rows: np.ndarray, compute: Callable[[np.ndarray], tuple[Tensor, ...]]
    ) -> tuple[np.ndarray, ...]:
        """Apply a function to each batch of `rows`, and join the results. The ranks (processes) share the batches.

        rows: row numbers of the images in the data set's table.
        compute: takes the row numbers of a batch and returns tensors whose first axis is the image.
        Returns each of these tensors for all images, in the order of `rows`. Every rank gets all of them.
        """
        batches = list(self.slices(rows)) or [slice(0)]  # of no images, the shapes
        mine = batches[self.ranks.share(len(batches))]
        found = [compute(rows[batch]) for batch in mine or batches[:1]]  # a rank without a batch learns the shapes
        joined = (torch.cat(values) if mine else values[0][:0] for values in zip(*found, strict=True))
        return tuple(self.ranks.joined(values).cpu().numpy() for values in joined)

    def batch(self, rows: np.ndarray, pixels: ImageSource | None = None) -> ImageBatch:
        """Return some images as one batch, with their tokens at the splice (after block `layer`).

        rows: row numbers of the images in the data set's table.
        pixels: a function from row numbers to other pixels for these images, [n, s, s, 3], from which the tokens are
            computed, those of twins too. If not given, the tokens come from the activation store.
        """
        read = self.audit.tokens if pixels is None else self._computed_from(pixels)
        return ImageBatch(self.audit, rows, read(rows), read)

    def _computed_from(self, pixels: ImageSource) -> TokenSource:
        def tokens(rows: np.ndarray) -> Tensor:
            _, kept = self.clip.residuals(self.clip.pixels(pixels(rows)), [self.layer])
            return kept[self.layer].float()

        return tokens

    @torch.no_grad()
    def embeddings(self, rows: np.ndarray, arm: Arm = original) -> Float[np.ndarray, "n embed"]:
        """Embed some images with CLIP while an arm changes the residual stream after block `layer`.

        rows: row numbers of the images in the data set's table.
        arm: the intervention on the residual stream; none if not given.
        Returns unit-norm image embeddings, one per image.
        """

        def embed(some: np.ndarray) -> tuple[Tensor]:
            return (self.clip.tail(arm(self.batch(some)), self.layer),)

        return self.compute_by_batch(rows, embed)[0]

    def reconstructed(self, batch: ImageBatch) -> Float[Tensor, "n token d_in"]:
        """Return the SAE's reconstruction of the tokens of a batch of images.

        This method can be used as an arm. The arm replaces the residual stream by the reconstruction.
        """
        return self.sae(batch.tokens)

    def edit_arm(self, edit: LatentEdit, scope: schema.EditScope) -> Arm:
        """Build the arm that applies an edit to some tokens, with the SAE's reconstruction error kept.

        An arm is an intervention on the residual stream.

        edit: the change of some latents' activations. An edit of kind `patch` sets the activations to those of the
            clothed twin (same woman, same expression).
        scope: the tokens to edit: `all`, `cls` (class token), `patches`, `bust` (patches inside the bust) or `not_bust`
            (patches outside the bust).
        """

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
        """Build the arm that applies the edit of params.yaml to the chosen latents.

        An arm is an intervention on the residual stream.

        chosen: the latents to edit, and the mean activations over images of the women used for choosing. An edit of
            kind `mean` sets latents to these means.
        edit: the edit of params.yaml, with its kind and the tokens in its scope.
        latents: indices of other latents of the same SAE to edit instead; the chosen ones if not given.
        """
        latents = chosen.latents if latents is None else latents
        return self.edit_arm(LatentEdit.from_params(edit, latents, chosen.means, self.clip.device), edit.scope)

    @contextmanager
    def arm_in_place(self, arm: Arm, rows: np.ndarray) -> Iterator[None]:
        """Open a context in which an arm changes the residual stream whenever CLIP runs on pixels.

        arm: an intervention on the residual stream after block `layer`.
        rows: row numbers of the images in the data set's table. Each run of CLIP must take the pixels of all these
            images in one batch, in this order. The tokens of twins are those of the activation store: unchanged images.
        """

        def change(tokens: Tensor) -> Tensor:
            return arm(ImageBatch(self.audit, rows, tokens, self.audit.tokens))

        with replaced_residual(self.clip.visual, self.layer, change):
            yield

    @torch.no_grad()
    def outcomes(self, rows: np.ndarray, arms: list[Arm], pixels: ImageSource | None = None) -> Outcomes:
        """Run CLIP on some images under each arm. An arm is an intervention on the residual stream after block `layer`.

        rows: row numbers of the images in the data set's table.
        arms: the arms, each applied alone.
        pixels: a function from row numbers to other pixels for these images, [n, s, s, 3]. If not given, the tokens of
            the images come from the activation store.
        Returns arrays with the axes [arm, image]:
            R          log-probability of the true emotion, nats
            correct    1 where the most probable emotion is the true one, else 0
            cosine     cosine of the image embedding with the embedding of the same pixels without any arm
        """

        shown = bar("run CLIP", len(list(self.slices(rows))) * len(arms), shown=self.ranks.first)

        def judged(arm: Arm, batch: ImageBatch, truth: Tensor, unedited: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            shown.update(self.ranks.size)
            return self._judge(self.clip.tail(arm(batch), self.layer), truth, unedited)

        def run(some: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
            batch, truth = self.batch(some, pixels), self.truth(some)
            unedited = self.clip.tail(batch.tokens, self.layer)
            found = [judged(arm, batch, truth, unedited) for arm in arms]
            R, correct, cosine = (torch.stack(values, 1).double() for values in zip(*found, strict=True))
            return R, correct, cosine

        with shown:
            return Outcomes(*(values.T for values in self.compute_by_batch(rows, run)))

    def _judge(self, embedded: Tensor, truth: Tensor, unedited: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (
            self.readout.score(embedded, truth),
            self.readout.correct(embedded, truth),
            (embedded * unedited).sum(-1),
        )

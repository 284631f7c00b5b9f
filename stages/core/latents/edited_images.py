"""Images of some pairs, kept in memory, and what CLIP gives for them while latents are edited.

A search edits the same images many times. So their tokens are read once, and only what it judges is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.spliced_clip import ImageBatch, SplicedClip
from stages.core.paired import Pairs
from stages.core.run.labels import CONDITIONS
from stages.core.schema import Edit


@dataclass(frozen=True)
class SearchLabels:
    """Labels of the images that a search uses. Searches on labels that mean nothing use others than the true ones.

    emotions: index of the emotion that R is about, for each image of `pairs.rows`; the true one if not given.
    swapped: for each pair, whether its two images change places; none do if not given.
    """

    emotions: Int[np.ndarray, " image"] | None = None
    swapped: Bool[np.ndarray, " pair"] | None = None

    def split(self, pairs: Pairs, values: np.ndarray) -> dict[str, np.ndarray]:
        """Split values, whose first axis is the image, by the condition that an image counts as."""
        halves = pairs.split(values, axis=0)
        if self.swapped is None:
            return halves
        where = self.swapped.reshape(-1, *[1] * (values.ndim - 1))
        first, second = (halves[condition] for condition in CONDITIONS)
        return dict(zip(CONDITIONS, (np.where(where, second, first), np.where(where, first, second)), strict=True))


TRUE_LABELS = SearchLabels()


@dataclass(frozen=True)
class EditedImages:
    """The images of some pairs at the splice, and what CLIP gives for them while latents are edited.

    spliced: CLIP with the SAE, and the images.
    pairs: the pairs whose images are used.
    edit: how latents are edited.
    means: mean activation of every latent, on the class token (row 0) and on patches (row 1), for edits to the mean.
    """

    spliced: SplicedClip
    pairs: Pairs
    edit: Edit
    means: Float[np.ndarray, "2 d_sae"]

    @cached_property
    def batches(self) -> list[ImageBatch]:
        """The images of `pairs.rows` in batches. If the edit needs no others, only the tokens that reach the embedding.

        Those are all tokens, but after the last block only the class token.
        """
        spliced, rows = self.spliced, self.pairs.rows
        whole = [spliced.batch(rows[some]) for some in spliced.slices(rows)]
        if self.edit.kind == "patch" or self.edit.scope in ("bust", "not_bust"):
            return whole
        return [replace(batch, tokens=batch.tokens[:, spliced.reaching].contiguous()) for batch in whole]

    @cached_property
    def truth(self) -> Int[Tensor, " image"]:
        """Index of the true emotion of each image of `pairs.rows`, on the device of CLIP."""
        return self.spliced.truth(self.pairs.rows)

    def edited(
        self, latents: list[int], labels: SearchLabels
    ) -> Iterator[tuple[Float[Tensor, "n token d_in"], Int[Tensor, " n"]]]:
        """Edit some latents.

        latents: indices of the latents. labels: what counts as the emotion of an image.
        Yields for each batch the edited tokens that reach the embedding, and the emotion of each image.
        """
        spliced, rows, device = self.spliced, self.pairs.rows, self.spliced.clip.device
        change = LatentEdit.from_params(self.edit, np.array(latents, dtype=np.int64), self.means, device)
        arm = spliced.edit_arm(change, self.edit.scope)
        emotions = self.truth if labels.emotions is None else torch.from_numpy(labels.emotions).to(device)
        for some, batch in zip(spliced.slices(rows), self.batches, strict=True):
            yield arm(batch)[:, spliced.reaching], emotions[some]

    @torch.no_grad()
    def readout(
        self, latents: list[int], labels: SearchLabels = TRUE_LABELS
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Measure what CLIP reads while some latents are edited.

        latents: indices of the latents. labels: what counts as the emotion of an image, and as the losing twin.
        Returns two means over images, by condition: R (log-probability of the emotion, nats) and accuracy.
        """
        spliced, found = self.spliced, []
        for tokens, emotions in self.edited(latents, labels):
            embedded = spliced.clip.tail(tokens, spliced.layer)
            found.append([judge(embedded, emotions) for judge in (spliced.readout.score, spliced.readout.correct)])
        R, correct = (torch.cat(values).double().cpu().numpy() for values in zip(*found, strict=True))
        of_R, of_correct = (labels.split(self.pairs, values) for values in (R, correct))
        return _means(of_R), _means(of_correct)


def _means(by_condition: dict[str, np.ndarray]) -> dict[str, float]:
    return {condition: float(values.mean()) for condition, values in by_condition.items()}

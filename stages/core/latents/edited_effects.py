"""The first-order effects of latents on the emotion readout while other latents are edited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stages.core.latents.effects import attribution_patching_effect
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.pooling import PooledLatents
from stages.core.latents.spliced_clip import ImageBatch, SplicedClip
from stages.core.paired import Pairs
from stages.core.run.labels import CONDITIONS
from stages.core.schema import Edit

MIN_WOMEN = 2  # a latent that fires on fewer women cannot be shown to differ, nor be trusted on others

Effects = Callable[[list[int]], dict[str, Float[np.ndarray, "pair latent"]]]
"""A function from the indices of the edited latents to the effects of the candidates on R, nats, by condition."""


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


def candidate_latents(pooled: PooledLatents, images: Int[np.ndarray, " n"], women: np.ndarray) -> Int[np.ndarray, " c"]:
    """Return the indices of the latents that can be found: those that fire on images of at least two women.

    pooled: activations of all latents, pooled over the tokens of each image.
    images: positions in `pooled` of the images to look at. women: the woman of each of them.
    """
    fires = np.maximum(pooled.cls[images], pooled.max[images]) > 0
    _, woman = np.unique(women, return_inverse=True)
    n_women = sum((fires[woman == w].any(0).astype(int) for w in range(woman.max() + 1)), np.zeros(fires.shape[1], int))
    return np.flatnonzero(n_women >= MIN_WOMEN)


@dataclass(frozen=True)
class EditedEffects:
    """Effects on R (log-probability of the true emotion, nats) of the latents that are not edited, to first order.

    effect = sum over tokens of f * dR/df         f as without the edit, dR/df in the edited model

    An edit of more latents sets these to their target and leaves every other f as it is, because the edits keep the
    SAE's reconstruction error. So f stays that of the unedited tokens, and only the gradient is taken in the edited
    model. Tokens that cannot reach the embedding (patches after the last block) are left out.

    spliced: CLIP with the SAE, and the images.
    pairs: the pairs whose effects are computed.
    edit: how latents are edited.
    means: mean activation of every latent, on the class token (row 0) and on patches (row 1), for edits to the mean.
    candidates: indices of the latents whose effects are computed.
    labels: what counts as the emotion of an image, and as the losing twin; the truth if not given.
    """

    spliced: SplicedClip
    pairs: Pairs
    edit: Edit
    means: Float[np.ndarray, "2 d_sae"]
    candidates: Int[np.ndarray, " c"]
    labels: SearchLabels = TRUE_LABELS

    @cached_property
    def batches(self) -> list[tuple[ImageBatch, Float[Tensor, "n token c"]]]:
        """The images of the pairs in batches, and the activations of the candidates on their unedited tokens (sparse).

        They are the same in all steps of all searches, so they are computed once. The tokens are those that can reach
        the embedding, if the edit needs no others.
        """
        spliced, rows, found = self.spliced, self.pairs.rows, []
        chosen = torch.from_numpy(self.candidates).to(spliced.clip.device)
        alone = self.edit.kind != "patch" and self.edit.scope in ("all", "cls", "patches")
        for some in spliced.slices(rows):
            batch = spliced.batch(rows[some])
            reaching = batch.tokens[:, spliced.reaching]
            f = spliced.sae.encode(reaching, chosen).to_sparse()
            found.append((replace(batch, tokens=reaching) if alone else batch, f))
        return found

    @cached_property
    def decoder(self) -> Float[Tensor, "c d_in"]:
        """Decoder rows of the candidates."""
        return self.spliced.sae.W_dec[torch.from_numpy(self.candidates).to(self.spliced.clip.device)]

    def under(self, labels: SearchLabels) -> EditedEffects:
        """Return the effects for other labels of the same images."""
        other = replace(self, labels=labels)
        other.__dict__.update(batches=self.batches, decoder=self.decoder)
        return other

    @torch.no_grad()
    def __call__(self, edited: list[int]) -> dict[str, Float[np.ndarray, "pair c"]]:
        """Compute the effect of each candidate on each image, nats, while the latents `edited` are edited.

        Returns the keys `semi_nude` and `clothed`. Each holds a row per pair and a column per candidate.
        """
        spliced, rows = self.spliced, self.pairs.rows
        device = spliced.clip.device
        change = LatentEdit.from_params(self.edit, np.array(edited, dtype=np.int64), self.means, device)
        arm, parts = spliced.edit_arm(change, self.edit.scope), []
        emotions = self.labels.emotions
        of_image = spliced.truth(rows) if emotions is None else torch.from_numpy(emotions).to(device)
        for some, (batch, f) in zip(spliced.slices(rows), self.batches, strict=True):
            gradient = spliced.gradient(arm(batch)[:, spliced.reaching], of_image[some])
            parts.append(attribution_patching_effect(self.decoder, f.to_dense(), gradient).cpu().numpy())
        return self.labels.split(self.pairs, np.concatenate(parts))

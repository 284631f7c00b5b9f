"""Images on which heatmaps are checked: their maps, and R while some of their patches are hidden.

R is the log-probability of the true emotion, nats (`clip/readout.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from stages.core import eclip
from stages.core.checks import deletion_insertion
from stages.core.clip.readout import Readout, embedded_each
from stages.core.clip.vit import FrozenClip
from stages.core.data.dataset import Dataset
from stages.core.paired import Bounds, Pairs, difference_bounds
from stages.core.schema import Inference

Grids = Float[np.ndarray, "n gh gw"]


class CheckedImages:
    """Images on which maps are checked, and the original model. Maps and readouts are computed batch by batch.

    clip: the original model. data: the data set. batch_size: number of images in one batch.
    rows: row numbers of the images in the data set's table (`data.table`), ascending.
    passes: progress bar that counts forward passes of one image each.
    labels: these rows of the data set's table, with a new index from 0.
    readout: the prompts of all emotions as the model sees them.
    truth: index of each image's true emotion among these prompts.
    own: unit-norm embedding of each image's own prompt, an array [image, embed]. The stage `heatmap` maps this text.
    """

    def __init__(self, clip: FrozenClip, data: Dataset, rows: np.ndarray, batch_size: int, passes: Any):
        self.clip, self.data, self.rows, self.batch_size, self.passes = clip, data, rows, batch_size, passes
        self.labels = data.table.iloc[self.rows].reset_index(drop=True)
        self.readout = Readout.from_prompts(clip, data.prompts.values())
        self.truth = torch.from_numpy(data.emotion_index(self.rows)).to(clip.device)
        self.own = embedded_each(clip, self.labels["prompt"].tolist())

    @property
    def others(self) -> torch.Tensor:
        """Mean embedding of the prompts of all emotions except the image's true one: an array [image, embed]."""
        n = len(self.readout.prompts)
        return (self.readout.prompts.sum(0) - self.readout.prompts[self.truth]) / (n - 1)

    def slices(self) -> list[slice]:
        """Split the images into batches. Returns a slice of the images for each batch, in order."""
        return [slice(start, start + self.batch_size) for start in range(0, len(self.rows), self.batch_size)]

    def explain(self, texts: torch.Tensor, model: torch.nn.Module | None = None, **options: Any) -> eclip.Explanation:
        """Compute heatmaps of all images: for each image, a map for each of k texts.

        texts: embeddings [k, image, embed]: unit-norm embeddings of texts, or differences of two such embeddings.
        model: the model to explain; the original one if not given.
        options: passed to `eclip.explain`: methods (the map methods), layers (the blocks to explain, counted from 1),
            single_head (True: one attention head, as in the published code).
        Returns the raw maps [image, k, gh, gw] by method, with gh rows and gw columns of patches. Returns also
        the cosine of each image with each text [image, k].
        Raises ExplainError if the formulas of a method do not apply to the model.
        """
        model = self.clip.model if model is None else model
        parts = []
        for part in self.slices():
            pixels = self.clip.pixels(self.data.images(self.rows[part]))
            parts.append(eclip.explain(model, pixels, texts[:, part], **options))
            self.passes.update(len(pixels))
        raw = {method: torch.cat([part.raw[method] for part in parts]) for method in parts[0].raw}
        return eclip.Explanation(raw, torch.cat([part.similarity for part in parts]))

    @torch.no_grad()
    def R(self, images: np.ndarray, part: slice) -> np.ndarray:
        """Compute R, the log-probability of the true emotion (nats), of changed images.

        images: the changed images as RGB pixels, in place of the images in `part`.
        part: which of the images were changed: a slice, such as one of `slices`.
        Returns a value for each image in `part`.
        """
        found = self.readout.score(self.clip.embed(self.clip.pixels(images)), self.truth[part]).cpu().numpy()
        self.passes.update(len(images))
        return found

    def along(
        self,
        grids: dict[str, Grids],
        kind: deletion_insertion.Kind,
        shares: Sequence[float],
        among: Bool[np.ndarray, "n gh gw"] | None = None,
    ) -> dict[str, Float[np.ndarray, "share n"]]:
        """Compute R while more and more patches of each image are hidden or shown, in the order of each map.

        R is the log-probability of the true emotion, nats.

        grids: maps [image, gh, gw] by name. A map has gh rows and gw columns of patches.
        kind: `deletion` greys patches out, the largest map values first. `insertion` starts from a grey image and shows
            patches in this order.
        shares: the shares of patches hidden or shown, from 0 to 1.
        among: True for each patch that may be hidden or shown, for example the patches in a region. All patches if not
            given.
        Returns, for each map, R in an array [share, image].
        """
        found = {name: np.empty((len(shares), len(self.rows)), np.float32) for name in grids}
        for part in self.slices():
            images, limits = self.data.images(self.rows[part]), None if among is None else among[part]
            ends: dict[float, np.ndarray] = {}
            for name, maps in grids.items():
                for i, share in enumerate(shares):
                    if (R := ends.get(share)) is None:
                        R = self.R(deletion_insertion.perturbed(images, maps[part], share, kind, limits), part)
                    if share in (0, 1):
                        ends[share] = R
                    found[name][i, part] = R
        return found

    def by_condition(self, values: np.ndarray, inference: Inference, bounds: Bounds | None = None) -> dict[str, Any]:
        """Average a value per image over the pairs of these images, by condition.

        values: a value for each image. Both images of each pair must be there.
        inference: settings of the intervals.
        bounds: the smallest and the largest possible value, if there are any.
        Returns
            semi_nude, clothed    mean of the condition
            gap                   mean of clothed minus semi-nude: estimate, low, high (interval over women)
        """
        pairs = Pairs.from_images(self.data.table.iloc[self.rows])
        values = values[pairs.positions(self.rows)]
        means = {condition: float(part.mean()) for condition, part in pairs.split(values).items()}
        gap = pairs.interval(pairs.gap(values), inference, difference_bounds(bounds))
        return {**means, "gap": gap.as_metrics()}

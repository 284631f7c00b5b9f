"""R of changed images: the function that all maps ask, images of which parts are hidden, and batches of changed images.

R is the log-probability of an image's true emotion, nats (`clip/readout.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stages.core.latents.spliced_clip import Arm, ImageBatch, SplicedClip, original

ReadR = Callable[[Float[Tensor, "b ..."], Int[Tensor, " b"]], Float[Tensor, "b ..."]]
"""A function that gives R of b changed inputs, differentiable. It takes the inputs (normalised pixels or tokens), and
for each of them the position of the image that it was made from. If it runs several arms, it gives R [b, arm]."""


def read_pixels(spliced: SplicedClip, rows: np.ndarray, arms: Sequence[Arm]) -> ReadR:
    """Return the function that gives R of changed pixels of some images under each arm: an array [b, arm].

    The blocks up to the splice run once for all arms.

    spliced: CLIP with the SAE, and the data set.
    rows: row numbers of the images in the data set's table. The returned function counts images by their place here.
    arms: interventions on the residual stream. If an arm needs twins, it takes those of the unchanged images.
    """
    truth = spliced.truth(rows)

    def read(pixels: Tensor, image: Tensor) -> Tensor:
        tokens = spliced.clip.head(pixels, spliced.layer)
        batch = ImageBatch(spliced.audit, rows[image.cpu().numpy()], tokens, spliced.audit.tokens)
        embedded = torch.stack([spliced.clip.tail(arm(batch), spliced.layer) for arm in arms], 1)
        return spliced.readout.score(embedded, truth[image][:, None].expand(-1, len(arms)))

    return read


def read_pixels_of_original(spliced: SplicedClip, rows: np.ndarray) -> ReadR:
    """Return the function that gives R of changed pixels of some images in the original model: an array [b].

    spliced: CLIP with the SAE, and the data set.
    rows: row numbers of the images in the data set's table. The returned function counts images by their place here.
    """
    read = read_pixels(spliced, rows, [original])
    return lambda pixels, image: read(pixels, image)[:, 0]


def read_tokens(spliced: SplicedClip, rows: np.ndarray) -> ReadR:
    """Return the function that gives R of changed tokens of some images, [b]. Only the blocks after the splice run.

    spliced: CLIP with the SAE, and the data set. The tokens are those of the residual stream that the SAE reads.
    rows: row numbers of the images in the data set's table. The returned function counts images by their place here.
    """
    truth = spliced.truth(rows)

    def read(tokens: Tensor, image: Tensor) -> Tensor:
        return spliced.readout.score(spliced.clip.tail(tokens, spliced.layer), truth[image])

    return read


def in_batches(
    n: int, k: int, batch_size: int, device: torch.device
) -> Iterator[tuple[Int[Tensor, " b"], Int[Tensor, " b"]]]:
    """Go through k changes of each of n images, batch by batch.

    batch_size: largest number of changed images in a batch. device: where the results are put.
    Yields two arrays per batch, in order: the position of each image, 0 to n - 1, and the number of its change, 0 to
    k - 1.
    """
    for start in range(0, n * k, batch_size):
        both = torch.arange(start, min(start + batch_size, n * k), device=device)
        yield both // k, both % k


@dataclass(frozen=True)
class HidableImages:
    """Images of which any part can be hidden, and R (log-probability of the true emotion, nats) of what is left.

    read: gives R of changed pixels, of one model or under several arms.
    pixels: the images as normalised pixels. hidden: what their pixels become where they are hidden (`fills.py`).
    batch_size: largest number of changed images in one forward pass.
    """

    read: ReadR
    pixels: Float[Tensor, "n 3 s s"]
    hidden: Float[Tensor, "n 3 s s"]
    batch_size: int

    @torch.no_grad()
    def R(self, visible: Float[Tensor, "n k s s"] | Bool[Tensor, "n k s s"]) -> Float[Tensor, "n k ..."]:
        """Compute R of each image while only a part of it is visible, for k parts of each image, nats.

        visible: share of each pixel that is visible, 0 to 1. The rest of the pixel is hidden.
        Returns R of each image and part, and under each arm if `read` runs several.
        """
        n, k = visible.shape[:2]
        found = []
        for image, part in in_batches(n, k, self.batch_size, self.pixels.device):
            shown = visible[image, part][:, None].to(self.pixels.dtype)
            found.append(self.read(torch.lerp(self.hidden[image], self.pixels[image], shown), image))
        return torch.cat(found).unflatten(0, (n, k))

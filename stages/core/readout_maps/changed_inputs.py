"""R of changed images: the function that all maps ask, and how many changed images are run in batches.

R is the log-probability of an image's true emotion, nats (`clip/readout.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stages.core.latents.spliced_clip import Arm, ImageBatch, SplicedClip, original

ReadR = Callable[[Float[Tensor, "b ..."], Int[Tensor, " b"]], Float[Tensor, "b ..."]]
"""A function that gives R of b changed inputs, differentiable. It takes the inputs (normalised pixels or tokens), and
for each of them the position of the image that it was made from. If it runs several arms, it gives R [b, arm]."""


def read_pixels(spliced: SplicedClip, rows: np.ndarray, arms: Sequence[Arm] = (original,)) -> ReadR:
    """Return the function that gives R of changed pixels of some images under each arm: an array [b, arm].

    The blocks up to the splice run once for all arms.

    spliced: CLIP with the SAE, and the data set.
    rows: row numbers of the images in the data set's table. The returned function counts images by their place here.
    arms: interventions on the residual stream; the original model alone if not given. If an arm needs twins, it takes
        those of the unchanged images.
    """
    truth = spliced.truth(rows)

    def read(pixels: Tensor, image: Tensor) -> Tensor:
        tokens = spliced.clip.head(pixels, spliced.layer)
        batch = ImageBatch(spliced.audit, rows[image.cpu().numpy()], tokens, spliced.audit.tokens)
        embedded = torch.stack([spliced.clip.tail(arm(batch), spliced.layer) for arm in arms], 1)
        return spliced.readout.score(embedded, truth[image][:, None].expand(-1, len(arms)))

    return read


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

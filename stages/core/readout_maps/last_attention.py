"""Maps of R through the attention of the last block: the formulas of `eclip.py`, with dR in place of dS. Signed, nats.

Maps of the cosine S with one text show where the text is seen. R also asks which emotion is seen instead. For the
gradient, R is a cosine, too: dR = dS with the text dR/de (`Readout.slope`). So one backward pass gives dR.

`attribution` over all tokens adds up to g . a_cls: the part of the last attention in R, to first order.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from stages.core import eclip
from stages.core.latents.spliced_clip import Arm, SplicedClip, original

METHODS: tuple[eclip.Method, ...] = (
    "attribution",
    "grad_eclip",
)  # of the others, one is never negative, one knows no R


def last_attention_maps(
    spliced: SplicedClip, rows: np.ndarray, arm: Arm = original
) -> dict[eclip.Method, Float[np.ndarray, "n gh gw"]]:
    """Compute the signed maps of R by the methods of `eclip.py` (METHODS), while an arm changes the model.

    spliced: CLIP with the SAE, and the data set.
    rows: row numbers of the images in the data set's table.
    arm: an intervention on the residual stream; none if not given.
    Returns the maps by method. Raises ExplainError if the formulas do not apply to the model.
    """

    def explain(some: np.ndarray) -> tuple[Tensor, ...]:
        truth = spliced.truth(some)
        with spliced.arm_in_place(arm, some):
            found = eclip.explain(
                spliced.clip.model,
                spliced.clip.pixels(spliced.data.images(some)),
                lambda embeddings: spliced.readout.slope(embeddings, truth)[None],
                methods=METHODS,
            )
        return tuple(found.raw[method][:, 0] for method in METHODS)

    return dict(zip(METHODS, spliced.compute_by_batch(rows, explain), strict=True))

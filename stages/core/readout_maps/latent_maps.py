"""Where in the picture latents act on R, and where an edit of them does. Signed, nats.

    first order    f . dR/df at each token: what R would lose there if the latent were zeroed (`latents/effects.py`)
    exact          integrated gradients from the edited tokens x' to the tokens x; adds up to R(x) - R(x')

An edit changes tokens by one summand per latent, in the direction of its decoder row. The path is straight, so the
exact map is the sum of one map per latent. All maps use the tokens after the block that the SAE reads. After the last
block only the class token reaches R, so the patches are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stages.core.latents.effects import effect_by_token
from stages.core.latents.selection import Selection
from stages.core.latents.spliced_clip import Arm, SplicedClip
from stages.core.readout_maps.changed_inputs import read_tokens
from stages.core.readout_maps.integrated_gradients import StraightPath
from stages.core.schema import Edit, MapReadout


@dataclass(frozen=True)
class LatentMaps:
    """Where in the picture the edited latents act on R (log-probability of the true emotion, nats).

    latents: indices of the edited latents.
    maps: what the edit of each latent does at each patch, [image, latent, gh, gw]. Below 0, the edit raises R.
    at_cls: the same at the class token, [image, latent].
    change: R without the edit minus R with it, which all of these add up to, [image].
    first_order: f . dR/df of each latent at each patch, [image, latent, gh, gw].
    """

    latents: np.ndarray
    maps: np.ndarray
    at_cls: np.ndarray
    change: np.ndarray
    first_order: np.ndarray


def map_latents(
    spliced: SplicedClip, rows: np.ndarray, chosen: Selection, edit: Edit, config: MapReadout
) -> LatentMaps:
    """Compute where in the picture the edited latents act on R.

    spliced: CLIP with the SAE, and the data set. rows: row numbers of the images in the data set's table.
    chosen: the latents to edit. edit: the edit of params.yaml.
    config: number of gradients on the path of an image, and of changed images in one pass.
    """
    whole = spliced.selected_edit_arm(chosen, edit)
    parts = [spliced.selected_edit_arm(chosen, edit, chosen.latents[i : i + 1]) for i in range(len(chosen.latents))]
    exact = edit_maps(spliced, rows, whole, parts, n_steps=config.n_steps, batch_size=config.batch_size)
    return LatentMaps(chosen.latents, *exact, effect_maps(spliced, rows, chosen.latents)[0])


def effect_maps(
    spliced: SplicedClip, rows: np.ndarray, latents: Int[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, "n k gh gw"], Float[np.ndarray, "n k"]]:
    """Compute the first-order effect f . dR/df of each latent on R at each patch, and at the class token.

    Activation f and derivative are those of the original model.

    spliced: CLIP with the SAE, and the data set.
    rows: row numbers of the images in the data set's table.
    latents: indices of the latents.
    Returns the maps of the patches, and the values of the class token. Both together add up to the latent's effect.
    """
    chosen = torch.tensor(latents, device=spliced.clip.device)

    def by_token(some: np.ndarray) -> tuple[Tensor, Tensor]:
        batch = spliced.batch(some)
        gradient = spliced.gradient(batch.tokens, spliced.truth(some))
        f = spliced.sae.encode(batch.tokens, chosen)
        effects = effect_by_token(spliced.sae.W_dec[chosen], f, gradient)
        return _split(effects.transpose(1, 2).contiguous(), spliced)  # one order in memory, however ranks share

    maps, at_cls = spliced.compute_by_batch(rows, by_token)
    return maps, at_cls


def edit_maps(
    spliced: SplicedClip, rows: np.ndarray, whole: Arm, parts: Sequence[Arm], *, n_steps: int, batch_size: int
) -> tuple[Float[np.ndarray, "n part gh gw"], Float[np.ndarray, "n part"], Float[np.ndarray, " n"]]:
    """Divide what an edit changes in R among its parts, and each part among the tokens. Below 0, the edit raises R.

    spliced: CLIP with the SAE, and the data set.
    rows: row numbers of the images in the data set's table.
    whole: the edit, as an arm (an intervention on the residual stream). Any other arm is possible, too.
    parts: arms whose changes of the tokens add up to that of `whole`, such as the edit of each latent alone; or `whole`
        itself.
    n_steps: number of gradients on the path of an image. batch_size: largest number of changed images in one pass.
    Returns the maps of the patches, the values of the class token, and R(x) - R(edited x), which maps and class token
    of all parts add up to.
    """

    def divided(some: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        batch = spliced.batch(some)
        path = StraightPath(read_tokens(spliced, some), whole(batch), batch.tokens, n_steps, batch_size)
        slope = path.mean_gradient()
        by_token = torch.stack([((batch.tokens - part(batch)) * slope).sum(-1) for part in parts], 1)
        return *_split(by_token, spliced), path.change_of_R()

    maps, at_cls, change = spliced.compute_by_batch(rows, divided)
    return maps, at_cls, change


def _split(by_token: Tensor, spliced: SplicedClip) -> tuple[Tensor, Tensor]:
    """Maps of the patches, and values of the class token. by_token: [n, k, token]."""
    return by_token[:, :, 1:].unflatten(2, spliced.clip.grid), by_token[:, :, 0]

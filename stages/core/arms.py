"""The arms of the causal test: what the residual stream becomes at the splice, beside the edit itself.

    original              x
    error_kept            the edit's arithmetic with nothing edited: equals the original
    reconstructed         the SAE's reconstruction: damage without an edit
    noise                 x + a random vector as long as the reconstruction error, token by token
    random_direction      x + a random vector as long as what the edit does, token by token
    difference_in_means   the direction between the conditions' means, projected out
    colour_subspace       the directions between the colours' means, projected out (planted world only)
    ranked_once           as many latents as are edited, the most harmful by effects taken once, with nothing edited
    shuffled_labels       the same, ranked with the two conditions' labels shuffled within pairs, woman by woman
    swapped               the edited latents take the values of the other twin: what the edit should mend on semi-nude
                          images, it should break on clothed ones
    edited                the edit of params.yaml
    edited_<scope>        the same at other tokens only: class token, patches, those in the bust, all patches but those

Both that project means out need labels of what to remove, and no SAE.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from stages.core import intervene, sections
from stages.core.dataset import CLOTHED, SEMI_NUDE, Dataset
from stages.core.encoding import PLANTED
from stages.core.intervene import Edit
from stages.core.selection import Selection
from stages.core.splice import Arm, Batch, Splice, original

SCOPES: tuple[sections.EditScope, ...] = ("cls", "patches", "bust", "not_bust")


def of(splice: Splice, chosen: Selection, config: sections.Edit, seed: int) -> dict[str, Arm]:
    """Every arm by its name."""
    k = len(chosen.latents)
    edited = chosen.arm(splice, config)
    return {
        "original": original,
        "error_kept": splice.arm(Edit(latents=torch.tensor([], dtype=torch.long)), config.scope),
        "reconstructed": splice.reconstructed,
        "noise": lambda batch: intervene.matched_noise(batch.tokens, splice.sae, [seed, *batch.rows.tolist()]),
        "random_direction": random_direction(edited, seed),
        **baselines(splice),
        "ranked_once": chosen.arm(splice, config, chosen.tests["eff_mean"].to_numpy().argsort(kind="stable")[:k]),
        "shuffled_labels": chosen.arm(splice, config, ranked_by_shuffled_labels(splice.data, chosen, seed)[:k]),
        "swapped": swapped(splice, chosen.latents),
        "edited": edited,
        **{f"edited_{scope}": chosen.arm(splice, config.model_copy(update={"scope": scope})) for scope in SCOPES},
    }


def ranked_by_shuffled_labels(data: Dataset, chosen: Selection, seed: int) -> Int[np.ndarray, " latent"]:
    """All latents, from the lowest mean effect gap, nats, when for half of the women, drawn at random, the twins'
    labels are exchanged: the ranking of `ranked_once` where there is nothing to find."""
    pairs, rows = data.pairs("discovery"), data.audit_rows()
    semi_nude, clothed = (chosen.codes.effect[np.searchsorted(rows, pairs[c])] for c in (SEMI_NUDE, CLOTHED))
    women, woman = np.unique(pairs["identity"], return_inverse=True)
    signs = np.random.default_rng(seed).choice([-1, 1], len(women))[woman]
    return (signs[:, None] * (semi_nude - clothed)).mean(0).argsort(kind="stable")


def baselines(splice: Splice) -> dict[str, Arm]:
    """The arms that project means out."""
    found = {"difference_in_means": means_removed(splice, discovery_images(splice)["condition"])}
    if PLANTED in splice.data.table:
        found["colour_subspace"] = colour_subspace(splice)
    return found


def discovery_images(splice: Splice) -> pd.DataFrame:
    """Their rows of the data set's table."""
    return splice.data.table[splice.data.table["split"] == "discovery"]


def colour_subspace(splice: Splice) -> Arm:
    """The directions between the means of semi-nude discovery images by the planted label, projected out."""
    images = discovery_images(splice)
    return means_removed(splice, images.loc[images["condition"] == SEMI_NUDE, PLANTED])


def means_removed(splice: Splice, labels: pd.Series) -> Arm:
    """The subspace that tells the means of labelled images apart, projected out: of the class token, and of patches.

    labels: by row of the data set. Two labels leave one direction, the difference in means.
    """

    def kinds_of(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        tokens = splice.tokens(rows)
        return tokens[:, 0], tokens[:, 1:].mean(1)

    subspaces = []
    for values in map(torch.from_numpy, splice.each(labels.index.to_numpy(), kinds_of)):
        means = torch.stack([values[np.flatnonzero(labels == label)].mean(0) for label in sorted(set(labels))])
        centre = means.mean(0)
        basis = torch.linalg.svd(means - centre, full_matrices=False).Vh[: len(means) - 1]
        subspaces.append((centre.to(splice.clip.device), basis.to(splice.clip.device)))

    def apply(batch: Batch) -> Tensor:
        kinds = (batch.tokens[:, :1], batch.tokens[:, 1:])
        return torch.cat([x - (x - c) @ basis.T @ basis for x, (c, basis) in zip(kinds, subspaces, strict=True)], dim=1)

    return apply


def partly(arm: Arm, share: float) -> Arm:
    """A share of what an arm does."""
    return lambda batch: batch.tokens + share * (arm(batch) - batch.tokens)


def random_direction(arm: Arm, seed: int) -> Arm:
    """Another change of the same length at each token, in a random direction."""

    def apply(batch: Batch) -> Tensor:
        length = (arm(batch) - batch.tokens).norm(dim=-1, keepdim=True)
        noise = np.random.default_rng([seed, *batch.rows.tolist()]).standard_normal(
            batch.tokens.shape, dtype=np.float32
        )
        direction = torch.nn.functional.normalize(torch.from_numpy(noise).to(batch.tokens), dim=-1)
        return batch.tokens + length * direction

    return apply


def swapped(splice: Splice, latents: np.ndarray) -> Arm:
    """Latents as in the other twin, at the same tokens: the two differ in nothing but the garment."""
    edit = Edit(latents=torch.tensor(latents, device=splice.clip.device), kind="patch")

    def apply(batch: Batch) -> Tensor:
        return intervene.edited(batch.tokens, splice.sae, edit, twin=batch.twin)

    return apply

"""Totals of a set of latents: how active the set is, how much it acts on R, and how far its edit moves the tokens.

R is the log-probability of the true emotion, nats. Totals are measured on images of discovery women, on whom the
latents are chosen:

    activity          mean number of latents of the set that are active on a token (after the last block, on the class
                      token)
    contribution      mean over images of |first-order effect on R|, summed over the set, nats (`latents/effects.py`)
    length_cls        root mean square over images of the length of the edit's change to the class token
    length_patches    the same, of the mean change of the patches

The change is the sum over the set of (what the edit takes from the activation) * (decoder row). Its squared length is a
sum over pairs of latents, because decoder rows that point in one direction add up, and rows that point apart cancel. A
length is left out if the edit leaves its tokens alone, and the length of patches after the last block, where patches no
longer reach the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from stages.core.latents.selection import Selection
from stages.core.latents.spliced_clip import SplicedClip
from stages.core.paired import Pairs
from stages.core.run.labels import CLOTHED, CONDITIONS
from stages.core.schema import Edit, EditKind

SMALL = 0.01  # share of the totals of an average set below which totals count as alike


@dataclass(frozen=True)
class SetTotals:
    """What each latent of a pool adds to the totals of a set. In sets, a latent is named by its position in the pool.

    latents: indices in the SAE of the latents of the pool, ascending.
    sums: by quantity, the value of each latent. The total of a set is the sum over its latents.
    products: by length, the mean product of the changes by two latents. The squared length of a set is the sum over all
        pairs of its latents.
    """

    latents: Int[np.ndarray, " pool"]
    sums: dict[str, Float[np.ndarray, " pool"]]
    products: dict[str, Float[np.ndarray, "pool pool"]]

    @property
    def names(self) -> list[str]:
        """Names of the quantities: the sums, then the lengths."""
        return [*self.sums, *self.products]

    def of_sets(self, sets: Int[np.ndarray, "set k"]) -> Float[np.ndarray, "set quantity"]:
        """Compute the totals of sets of latents, in the order of `names`."""
        return self.rooted(self.with_squares(sets))

    def with_squares(self, sets: Int[np.ndarray, "set k"]) -> Float[np.ndarray, "set quantity"]:
        """Compute the same totals, but with the squares of the lengths."""
        sums = [values[sets].sum(1) for values in self.sums.values()]
        squares = [
            np.array([products[np.ix_(some, some)].sum() for some in sets]) for products in self.products.values()
        ]
        return np.stack([*sums, *squares], axis=1).astype(np.float64)

    def rooted(self, totals: Float[np.ndarray, "set quantity"]) -> Float[np.ndarray, "set quantity"]:
        """Replace squares by lengths. A square that rounding made negative counts as 0."""
        n = len(self.sums)
        return np.concatenate([totals[:, :n], np.sqrt(np.maximum(totals[:, n:], 0))], axis=1)

    def small(self, k: int) -> Float[np.ndarray, " quantity"]:
        """Compute totals that count as nearly nothing: a share (`SMALL`) of those of an average set of k latents."""
        sums = [k * values.mean() for values in self.sums.values()]
        lengths = [np.sqrt(k * products.diagonal().mean()) for products in self.products.values()]
        found = SMALL * np.array([*sums, *lengths], dtype=np.float64)
        return np.where(found > 0, found, 1.0)  # any number, if no latent of the pool has any of this quantity

    def exchanged(
        self, sets: Int[np.ndarray, "set k"], old: Int[np.ndarray, " set"], new: Int[np.ndarray, " set"]
    ) -> Float[np.ndarray, "set quantity"]:
        """Compute how `with_squares` changes if one latent of each set, `old`, gives way to the latent `new`."""
        found = [values[new] - values[old] for values in self.sums.values()]
        for products in self.products.values():
            with_set = (products[new[:, None], sets] - products[old[:, None], sets]).sum(1)
            found.append(2 * with_set + products[new, new] + products[old, old] - 2 * products[new, old])
        return np.stack(found, axis=1)


def measure(spliced: SplicedClip, chosen: Selection, edit: Edit) -> SetTotals:
    """Measure what each latent adds to the totals of a set. The pool: latents that act on R, and the edited latents.

    spliced: CLIP with the chosen SAE. Its data set names the images of discovery women.
    chosen: the edited latents, and what each latent of the SAE did on each image.
    edit: the edit of params.yaml: its kind, and the tokens in its scope.
    """
    pairs, last_block = Pairs.from_images(spliced.data.table, "discovery"), spliced.reaching != slice(None)
    pooled, images = chosen.pooled, pairs.positions(spliced.data.audit_rows())
    contribution = np.abs(pooled.effect[images]).mean(0)
    pool = np.union1d(np.flatnonzero(contribution), chosen.latents)
    cls, patches = (values[np.ix_(images, pool)] for values in (pooled.cls, pooled.mean))
    activity = (cls > 0).mean(0) if last_block else pooled.firing[pool]
    moved = {"length_cls": cls} if edit.scope in ("all", "cls") else {}
    if edit.scope != "cls" and not last_block:
        moved["length_patches"] = patches
    decoder = chosen.sae.W_dec.detach().cpu().numpy()[pool]
    aligned = decoder @ decoder.T
    products = {name: _mean_products(taken(values, pairs, edit.kind)) for name, values in moved.items()}
    for values in products.values():
        values *= aligned  # in place: with 10,000 active latents, each of these arrays takes 400 MB
    return SetTotals(pool, {"activity": activity, "contribution": contribution[pool]}, products)


def taken(values: Float[np.ndarray, "image pool"], pairs: Pairs, kind: EditKind) -> Float[np.ndarray, "image pool"]:
    """Compute what an edit takes from activations, up to a factor that is the same for all sets.

    values: activations, a row per image, in the order of `pairs.rows`.
    kind: `zero` and `scale` take from an activation in proportion to it; `mean` takes its distance to the mean over
        images, `patch` its distance to the activation on the clothed twin.
    """
    if kind == "mean":
        return values - values.mean(0)
    if kind == "patch":
        return values - np.tile(pairs.split(values, axis=0)[CLOTHED], (len(CONDITIONS), 1))
    return values


def _mean_products(changes: Float[np.ndarray, "image pool"]) -> Float[np.ndarray, "pool pool"]:
    return changes.T @ changes / len(changes)

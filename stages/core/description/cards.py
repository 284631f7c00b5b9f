"""Cards of latents: what a latent does on images of confirmation women, and what its decoder direction writes.

The stage `describe_latents` draws cards, and the explorer shows the card of any latent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from stages.core import paired
from stages.core.description import decoder_directions, label_association
from stages.core.latents.pooling import PooledLatents
from stages.core.latents.selection import Selection
from stages.core.latents.spliced_clip import SplicedClip
from stages.core.paired import Pairs
from stages.core.run import params
from stages.core.run.labels import CONDITIONS, PLANTED
from stages.core.schema import DescribeLatents, Inference


@dataclass(frozen=True)
class ConfirmationImages:
    """The images of confirmation women (women held out from choosing), and what is known of each image.

    All fields have the images in the same order.
    """

    rows: Int[np.ndarray, " image"]
    """Row number of each image in the table of the data set, ascending."""
    images: pd.DataFrame
    """Labels of each image, such as identity, condition and emotion. The index runs from 0."""
    pooled: PooledLatents
    """Activation of each latent on each image: on the class token, and mean and maximum over the patches."""
    embeddings: Float[np.ndarray, "image embed"]
    """Unit-norm embedding of each image by the original model."""

    def activation(self, latent: int, pooling: str) -> Float[np.ndarray, " image"]:
        """Return a latent's activation on each image.

        latent: index of the latent. pooling: how an image's tokens are pooled: `cls`, `mean` or `max`.
        """
        return getattr(self.pooled, pooling)[:, latent]

    def top(self, values: np.ndarray, n: int) -> np.ndarray:
        """Find the images with the largest values, at most one per woman. Images of value 0 are left out.

        values: a value for each image, at least 0, such as the activation of one latent.
        n: largest number of images.
        Returns the positions of the images found in the arrays of this class, the largest value first.
        """
        order = np.argsort(-values, kind="stable")
        first = ~self.images["identity"].iloc[order].duplicated().to_numpy()
        return order[first & (values[order] > 0)][:n]


def confirmation_images(spliced: SplicedClip, chosen: Selection) -> ConfirmationImages:
    """Collect the images of confirmation women (women held out from choosing), both images of each pair.

    spliced: CLIP with the chosen SAE. It also gives the data set.
    chosen: the chosen SAE, with the activations of its latents on all audit images (the images of the pairs).
    Returns the images with their labels, activations and embeddings.
    Raises PooledLatentsError if the latents' activations on disk are damaged, SelectionError if they are of another
    SAE, and DamagedError if a shard of the tokens is damaged.
    """
    rows = np.sort(Pairs.from_images(spliced.data.table, "confirmation").rows)
    return ConfirmationImages(
        rows=rows,
        images=spliced.data.table.iloc[rows].reset_index(drop=True),
        pooled=chosen.pooled.of_images(np.isin(spliced.data.audit_rows(), rows)),
        embeddings=spliced.embeddings(rows),
    )


def described(
    spliced: SplicedClip,
    chosen: Selection,
    held_out: ConfirmationImages,
    latents: Int[np.ndarray, " k"],
    config: DescribeLatents,
) -> pd.DataFrame:
    """Describe latents by their activation on confirmation images and by their decoder direction.

    spliced: CLIP with the chosen SAE. chosen: the chosen SAE, with the firing rates of its latents.
    held_out: the images of confirmation women (held out from choosing), with each latent's activations.
    latents: indices of the latents.
    config: numbers of neighbours and prompts to name, and the vocabulary of prompts.
    Returns a row per latent, whose index is the latent:
        pooling                       the activation used for monosemanticity and for the images on the card. max:
                                      largest activation of a patch. cls: activation of the class token, for an SAE
                                      after the last block if the latent fires on any class token
        firing                        share of the tokens of all audit images on which the latent fires
        condition, emotion, intensity, colour, identity
                                      share of the activation's variance that the label explains. Intensity (of the
                                      expression) and colour (of the top) are absent if the images have no such label
        encodes, encodes_p            the label that explains most, or `none`; and the p that the latent encodes any
                                      label (`label_association.encoded`)
        monosemanticity               mean cosine of the embeddings of two images, weighted by both activations
        neighbours                    latents with the nearest decoder directions, with cosines, as text
        prompts                       prompts nearest to the decoder direction, with cosines, as text
    Raises ParamsError if a prompt of the vocabulary names a column that the images do not have.
    """
    last = spliced.layer == spliced.clip.n_layers
    table = pd.DataFrame(
        {
            "pooling": np.where(last & (held_out.pooled.cls[:, latents] > 0).any(0), "cls", "max"),
            "firing": chosen.tests["firing"].to_numpy()[latents],
        },
        index=latents,
    )
    table = table.join(label_association.encoded(held_out.pooled, held_out.images, latents))
    values = [held_out.activation(latent, pooling) for latent, pooling in table["pooling"].items()]
    stacked = np.stack(values, axis=1) if values else np.zeros((len(held_out.rows), 0))
    table["monosemanticity"] = label_association.monosemanticity(stacked, held_out.embeddings)
    near, cosines = decoder_directions.neighbours(spliced.sae.W_dec, latents, config.n_neighbours)
    table["neighbours"] = [
        ", ".join(f"{j} ({c:.2f})" for j, c in zip(*pair, strict=True)) for pair in zip(near, cosines, strict=True)
    ]
    table["prompts"] = nearest_prompts(spliced, latents, config)
    return table


def nearest_prompts(spliced: SplicedClip, latents: np.ndarray, config: DescribeLatents) -> list[str]:
    """Name the prompts of the vocabulary that are nearest to each latent's decoder direction, by cosine.

    spliced: CLIP with the SAE. It also gives the data set.
    latents: indices of the latents.
    config: `prompts` is the vocabulary. A {column} in a prompt stands for every value that the images have in that
        column. `n_prompts` is the number of prompts to name.
    Returns a text per latent: the nearest prompts, each with its cosine, nearest first.
    Raises ParamsError if a prompt names a column that the images do not have.
    """
    try:
        prompts = decoder_directions.vocabulary(config.prompts, spliced.data.table)
    except ValueError as error:
        raise params.ParamsError(f"describe_latents.prompts: {error}") from None
    cosines = decoder_directions.prompt_cosines(
        spliced.clip, spliced.sae.W_dec.detach()[torch.tensor(latents)], prompts
    )
    return [
        ", ".join(f"{prompts[j]} ({row[j]:.2f})" for j in np.argsort(-row, kind="stable")[: config.n_prompts])
        for row in cosines
    ]


@torch.no_grad()
def token_activation(spliced: SplicedClip, rows: np.ndarray, latent: int) -> Float[np.ndarray, "image token"]:
    """Return a latent's activation on each token of some images, class token first.

    spliced: CLIP with the SAE. It also gives the tokens.
    rows: row numbers of the images in the data set's table. latent: index of the latent.
    """
    chosen = torch.tensor([latent], device=spliced.clip.device)
    return spliced.sae.encode(spliced.audit.tokens(rows), chosen)[..., 0].cpu().numpy()


def mean_activation(values: Float[np.ndarray, " image"], images: pd.DataFrame, inference: Inference) -> pd.DataFrame:
    """Compute a latent's mean activation by condition and label, with intervals over women.

    The labels are the emotion of the face and, in the planted world, the colour of the top.
    values: activation of the latent on each image. images: labels of the images, in the same order.
    inference: settings of the bootstrap intervals.
    Returns a row per condition and value of a label: condition, label, value, estimate, low, high. Values that no image
    of a condition has are left out.
    """
    settings, rows = paired.bootstrap_settings(inference), []
    for condition in CONDITIONS:
        for label in ("emotion", PLANTED):
            for value in dict.fromkeys(images[label]) if label in images else ():
                part = ((images["condition"] == condition) & (images[label] == value)).to_numpy()
                if part.any():
                    women = images["identity"][part].to_numpy()
                    found = paired.interval(values[part].astype(np.float64), women, **settings)
                    rows.append((condition, label, value, found.estimate, found.low, found.high))
    return pd.DataFrame(rows, columns=["condition", "label", "value", "estimate", "low", "high"])

"""What the explorer answers: emotion probabilities and maps under an edit, latents that fire on a patch, and cards.

Probabilities come from the residual stream at the splice (the place after the block that the SAE reads), as in the
stage `ablate`; maps come from the pixels, as in `heatmap`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from stages.core import eclip
from stages.core.clip.readout import Readout
from stages.core.clip.vit import replaced_residual
from stages.core.description import cards
from stages.core.description.cards import ConfirmationImages
from stages.core.explorer import edit_lines, pictures
from stages.core.explorer.edit_lines import Factors
from stages.core.explorer.pictures import Pictures, Uploads
from stages.core.explorer.requests import MAX_FACTOR, PictureRequest, Place, RequestError, View
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.selection import Selection
from stages.core.latents.spliced_clip import ImageBatch, SplicedClip
from stages.core.paired import Pairs
from stages.core.run.labels import CONDITIONS
from stages.core.schema import DescribeLatents, Edit, EditScope, Inference

N_FIRING = 12  # latents that are named for a patch
N_REMEMBERED = 64  # pictures, and unedited results
TABLE = {  # columns of the table of latents, by their names in tests.csv
    "eff_mean": "effect gap",
    "eff_p_max_t": "p of the effect gap",
    "act_mean": "activation gap",
    "act_p_max_t": "p of the activation gap",
    "firing": "firing",
    "mean_cls": "mean, class token",
    "mean_patch": "mean, patches",
}
Change = Callable[[Tensor], Tensor]
"""A function that takes tokens at the splice, [n, token, d_in], and returns the changed tokens."""


@dataclass(frozen=True)
class Measured:
    """What the model gives for each of n pictures, with or without an edit."""

    probabilities: Float[Tensor, "n text"]
    """Probability of each text among all texts, at the model's own logit scale."""
    embeddings: Float[Tensor, "n embed"]
    """Unit-norm embedding of each picture."""
    cosines: Float[Tensor, " n"]
    """Cosine of each picture with the mapped text."""
    maps: Float[Tensor, "n gh gw"]
    """Signed Grad-ECLIP map of each picture for the mapped text."""


def measure(
    spliced: SplicedClip, shown: Pictures, readout: Readout, mapped: int, change: Change | None = None
) -> Measured:
    """Compute probabilities and maps of some pictures, while the residual stream is changed at the splice.

    spliced: CLIP with the SAE. shown: the pictures. readout: the texts, embedded.
    mapped: index of the text that the maps are about.
    change: the change of the tokens at the splice; none if not given.
    """
    clip = spliced.clip
    with torch.no_grad():
        embeddings = clip.tail(change(shown.tokens) if change else shown.tokens, spliced.layer)
    text = readout.prompts[mapped].expand(1, len(shown.pixels), -1)
    with replaced_residual(clip.visual, spliced.layer, change) if change else nullcontext():
        found = eclip.explain(clip.model, clip.pixels(shown.pixels), text)
    return Measured(
        probabilities=readout.log_probabilities(embeddings).exp(),
        embeddings=embeddings,
        cosines=found.similarity[:, 0],
        maps=found.raw["grad_eclip"][:, 0],
    )


def scaling(spliced: SplicedClip, shown: Pictures, factors: Factors, scope: EditScope) -> Change | None:
    """Build the edit that multiplies latents by factors, with the reconstruction error kept.

    shown: the pictures whose tokens the edit is for. factors: the factor of each latent. scope: the tokens to edit.
    Returns None if no factor differs from 1. Raises RequestError if a latent does not exist, or if the scope needs the
    bust mask of an uploaded picture.
    """
    if max(factors, default=0) >= spliced.sae.d_sae:
        raise RequestError(f"latent {max(factors)} does not exist; the SAE has {spliced.sae.d_sae}")
    if scope in ("bust", "not_bust") and not len(shown.rows):
        raise RequestError("an uploaded picture has no bust mask; choose the tokens all, cls or patches")
    edited = edit_lines.changed(factors)
    if not edited:
        return None
    by = torch.tensor(list(edited.values()), dtype=torch.float32)
    edit = LatentEdit(latents=torch.tensor(list(edited)), kind="scale", factor=by)
    arm = spliced.edit_arm(edit.to(spliced.clip.device), scope)
    return lambda x: arm(ImageBatch(spliced.audit, shown.rows, x, spliced.audit.tokens))


class Explorer:
    """A finished study, open to questions. Not for several threads at once: hooks are set on the model.

    spliced: CLIP with the chosen SAE. chosen: what `select_sae` chose.
    edit: the edit of params.yaml. describe: settings of cards. inference: settings of the intervals on cards.
    max_pixels: largest number of pixels of an uploaded picture.
    """

    def __init__(
        self,
        spliced: SplicedClip,
        chosen: Selection,
        edit: Edit,
        describe: DescribeLatents,
        inference: Inference,
        max_pixels: float,
    ):
        self.spliced, self.chosen, self.edit = spliced, chosen, edit
        self.describe, self.inference, self.max_pixels = describe, inference, max_pixels
        self.uploads = Uploads()
        self.shown_pictures = lru_cache(N_REMEMBERED)(self._shown_pictures)
        self.readout = lru_cache(N_REMEMBERED)(self._readout)
        self.unedited = lru_cache(N_REMEMBERED)(self._unedited)
        self.card = lru_cache(N_REMEMBERED)(self._card)

    def overview(self) -> dict[str, Any]:
        """Return what the page needs once.

        pairs             for each pair its number (`pair`), `woman`, `emotion`, `expression` (the emotion, and its
                          intensity if it has one) and `split`
        emotions          names of the emotions, in the order of the probabilities
        layer, last       the block that the SAE reads, counted from 1, and whether it is the last
        d_sae             number of latents
        grid              rows and columns of patches in a picture
        list, kind, scope  the edit of params.yaml: the list that its latents come from, what becomes of them, and the
                          tokens that are edited
        factors           for each latent of the study's edit its index and its factor
        """
        images = self.spliced.data.table
        takes = images.groupby("pair")["intensity"].first().to_dict() if "intensity" in images else {}
        return {
            "pairs": [
                {
                    "pair": int(row.pair),
                    "woman": row.identity,
                    "emotion": row.emotion,
                    "expression": " ".join(filter(None, (row.emotion, takes.get(row.pair, "")))),
                    "split": row.split,
                }
                for row in Pairs.from_images(images).table.itertuples()
            ],
            "emotions": self.spliced.data.emotions,
            "layer": self.chosen.layer,
            "last": self.chosen.layer == self.spliced.clip.n_layers,
            "d_sae": self.spliced.sae.d_sae,
            "grid": list(self.spliced.clip.grid),
            "list": self.chosen.edited_list,
            "kind": self.edit.kind,
            "scope": self.edit.scope,
            "factors": [[int(latent), self.study_factor] for latent in self.chosen.latents],
        }

    @property
    def study_factor(self) -> float:
        """The factor of the study's own edit, at most 4; 0 if the edit is no scaling."""
        return min(edit_lines.scaled_by(self.edit) or 0.0, MAX_FACTOR)

    def view(self, asked: View) -> dict[str, Any]:
        """Return probabilities and maps of some pictures, original and edited, and the lines that make the edit.

        asked: the pictures, the texts, and the factor of each latent.
        Returns `texts`; `pictures`; and `params` and `python`, the lines that make the edit. Each picture has its
        `name`; `truth`, the index of the true emotion (None for texts of one's own); `original` and `edited`; and
        `cosine_to_original`, of the embeddings. `original` and `edited` hold the probability of each text (they sum to
        1), the `cosine` with the mapped text, and its signed Grad-ECLIP `map`, [gh, gw].
        Raises RequestError if a pair, an upload, a text or a latent does not exist.
        """
        shown, texts = self.shown_pictures(asked.pair, asked.upload), tuple(asked.texts)
        labels = list(texts) or self.spliced.data.emotions
        if asked.mapped >= len(labels):
            raise RequestError(f"mapped: there is no text {asked.mapped}; there are {len(labels)}")
        factors = dict(asked.factors)
        change = scaling(self.spliced, shown, factors, asked.scope)
        original = self.unedited(asked.pair, asked.upload, texts, asked.mapped)
        edited = measure(self.spliced, shown, self.readout(texts), asked.mapped, change) if change else original
        kept = (original.embeddings * edited.embeddings).sum(-1)
        return {
            "texts": labels,
            "pictures": [
                {
                    "name": name,
                    "truth": None if texts else shown.truth,
                    "original": _sent(original, i),
                    "edited": _sent(edited, i),
                    "cosine_to_original": rounded(kept[i]),
                }
                for i, name in enumerate(shown.names)
            ],
            "params": edit_lines.params_lines(factors, self.chosen, self.edit, asked.scope),
            "python": edit_lines.python_lines(factors, asked.scope),
        }

    def _readout(self, texts: tuple[str, ...]) -> Readout:
        """The classifier made of some texts; that of the study's emotions if there are none."""
        clip = self.spliced.clip
        return Readout(clip.text(list(texts)), clip.logit_scale) if texts else self.spliced.readout

    def _shown_pictures(self, pair: int | None, upload: int | None) -> Pictures:
        if pair is not None:
            return pictures.of_pair(self.spliced, pair)
        return pictures.of_upload(self.spliced, self.uploads[upload or 0])

    def _unedited(self, pair: int | None, upload: int | None, texts: tuple[str, ...], mapped: int) -> Measured:
        return measure(self.spliced, self.shown_pictures(pair, upload), self.readout(texts), mapped)

    def upload(self, content: bytes) -> int:
        """Keep a picture of the user's own in memory. Returns its number.

        content: a PNG or JPEG file. Raises RequestError if it cannot be used.
        The oldest of more than eight pictures is forgotten, with all that was computed from it.
        """
        number = self.uploads.add(pictures.from_file(content, self.spliced.clip.image_size, self.max_pixels))
        self.shown_pictures.cache_clear()
        self.unedited.cache_clear()
        return number

    def picture(self, asked: PictureRequest, image: int) -> bytes:
        """Return a picture as CLIP sees it, as the content of a PNG file.

        image: 0 or 1, the semi-nude and the clothed picture of a pair. Raises RequestError if it does not exist.
        """
        shown = self.shown_pictures(asked.pair, asked.upload)
        if not 0 <= image < len(shown.pixels):
            raise RequestError(f"image: there is no picture {image}")
        return pictures.png(shown.pixels[image])

    @torch.no_grad()
    def firing(self, asked: Place) -> list[dict[str, Any]]:
        """List the latents that fire most on a token of a picture, in the model without an edit, strongest first.

        Returns for each latent its index, its activation on the token, and the lists that it is on.
        Raises RequestError if there is no such picture or token.
        """
        tokens = self.shown_pictures(asked.pair, asked.upload).tokens
        if asked.image >= len(tokens) or asked.token >= tokens.shape[1]:
            raise RequestError(f"there is no token {asked.token} of picture {asked.image}")
        f = self.spliced.sae.encode(tokens[asked.image, asked.token])
        found = f.topk(min(N_FIRING, len(f)))
        return [
            {"latent": int(latent), "activation": rounded(value), "lists": self.lists[int(latent)]}
            for value, latent in zip(found.values, found.indices, strict=True)
            if value > 0
        ]

    @cached_property
    def lists(self) -> list[str]:
        """The lists that each latent of the SAE is on: `bias`, `perception`, both, or neither (an empty text)."""
        on = [set(table["latent"]) for table in self.chosen.lists.values()]
        names = list(self.chosen.lists)
        return [
            " ".join(name for name, latents in zip(names, on, strict=True) if latent in latents)
            for latent in range(self.spliced.sae.d_sae)
        ]

    def latents(self) -> dict[str, Any]:
        """Return the table of all latents: the names of its columns, and for each column the values by latent.

        Gaps are clothed minus semi-nude, over discovery women. A number that was not computed is null.
        """
        tests = self.chosen.tests
        columns = {name: tests[column] for column, name in TABLE.items() if column in tests}
        edited = np.isin(tests["latent"], self.chosen.latents)
        return {
            "latent": tests["latent"].tolist(),
            "lists": [self.lists[latent] for latent in tests["latent"]],
            "edited": edited.tolist(),
            **{name: rounded(values.to_numpy()) for name, values in columns.items()},
        }

    @cached_property
    def held_out(self) -> ConfirmationImages:
        """The images of confirmation women, with each latent's activations. They are read at the first card."""
        return cards.confirmation_images(self.spliced, self.chosen)

    def _card(self, latent: int) -> dict[str, Any]:
        """Describe a latent as the stage `describe_latents` does, on confirmation women.

        latent: index of the latent. Raises RequestError if it does not exist.
        Returns the columns of `cards.described`, and
            latent, lists   index of the latent, and the lists that it is on
            gaps            the gaps by which the latent was tested (`_gaps`)
            means           the rows of `cards.mean_activation`
            top             the pictures that activate the latent most (`_top_images`)
        """
        if latent >= self.spliced.sae.d_sae:
            raise RequestError(f"latent {latent} does not exist; the SAE has {self.spliced.sae.d_sae}")
        held_out = self.held_out
        (row,) = _records(cards.described(self.spliced, self.chosen, held_out, np.array([latent]), self.describe))
        values = held_out.activation(latent, row["pooling"])
        return {
            "latent": latent,
            "lists": self.lists[latent],
            **row,
            "gaps": self._gaps(latent),
            "means": _records(cards.mean_activation(values, held_out.images, self.inference)),
            "top": self._top_images(latent, held_out.top(values, self.describe.n_images)),
        }

    def _gaps(self, latent: int) -> list[dict[str, Any]]:
        """The gaps (clothed minus semi-nude) by which the latent was tested, on discovery women.

        Each has its `name`, `mean`, interval (`low`, `high`) and `p_max_t`. A number that was not computed is None.
        """
        tests = self.chosen.tests.set_index("latent").loc[latent]
        names = {"effect gap, nats": "eff", "activation gap": "act"}
        return [
            {
                "name": name,
                **{key: rounded(tests.get(f"{short}_{key}", np.nan)) for key in ("mean", "low", "high", "p_max_t")},
            }
            for name, short in names.items()
        ]

    def _top_images(self, latent: int, top: np.ndarray) -> list[dict[str, Any]]:
        """The pictures in which the latent is most active: `pair`, `image` (0: semi-nude, 1: clothed) and `name`.

        Each has the latent's activation on the class token (`cls`) and on each patch (`grid`, [gh, gw]).
        """
        f = cards.token_activation(self.spliced, self.held_out.rows[top], latent)
        return [
            {
                "pair": int(labels["pair"]),
                "image": CONDITIONS.index(labels["condition"]),
                "name": f"{labels['image']}, {labels['emotion']}",
                "cls": rounded(tokens[0]),
                "grid": rounded(tokens[1:].reshape(self.spliced.clip.grid)),
            }
            for tokens, (_, labels) in zip(f, self.held_out.images.iloc[top].iterrows(), strict=True)
        ]


def _sent(measured: Measured, i: int) -> dict[str, Any]:
    return {
        "probabilities": rounded(measured.probabilities[i]),
        "cosine": rounded(measured.cosines[i]),
        "map": rounded(measured.maps[i]),
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, with its numbers as JSON can hold them."""
    return [
        {str(key): value if isinstance(value, str) else rounded(value) for key, value in row.items()}
        for row in table.to_dict("records")
    ]


def rounded(values: Any) -> Any:
    """Return numbers as JSON can hold them: nested lists with six significant digits. NaN and infinities become None.

    values: a number, an array or a tensor.
    """
    if isinstance(values, Tensor | np.ndarray | np.generic):
        values = values.tolist()
    if isinstance(values, list):
        return [rounded(value) for value in values]
    return float(f"{values:.6g}") if math.isfinite(values) else None

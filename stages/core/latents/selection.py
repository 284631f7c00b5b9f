"""The record of what `select_sae` chose: one SAE, its latents, and the latents to edit (`data/selection`).

`data/selection` holds nothing about a single image. What its latents did on each image lies in a folder of its own,
`data/selection_by_image`, because that stays on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from stages.core.latents import lists
from stages.core.latents.pooling import PooledLatents
from stages.core.run import faults, inputs
from stages.core.run.errors import StudyError
from stages.core.run.labels import SEMI_NUDE
from stages.core.sae import JumpReLUSAE
from stages.core.schema import Count, EditedLatents, LatentList

REMEDY = "rerun `dvc repro --force select_sae`"
TESTED = ["latent", "mean_cls", "mean_patch", "firing", "eff_mean"]


class SelectionError(StudyError):
    """A selection on disk cannot be used. The message names its path, the reason and the remedy."""


@dataclass(frozen=True)
class Selection:
    """What the stage `select_sae` chose: one SAE of the grid, and those of its latents that are to be edited."""

    layer: int
    """The SAE reads the residual stream after this block, counted from 1."""
    losing: str | None
    """The condition that CLIP reads worse on the women used for choosing: `semi_nude`, `clothed`, or None if it reads
    both alike."""
    edited_list: EditedLatents
    """Where the latents to edit come from: `ranked` (editing them gains most on the women used for choosing), `bias`
    (they are shown to harm the emotion readout in the losing condition) or `perception` (their activation differs by
    condition)."""
    edited: pd.DataFrame
    """A row per latent to edit, in the order in which the search accepted them; no row if no edit helps, or if there is
    no gap to explain. Columns: those of the lists."""
    lists: dict[LatentList, pd.DataFrame]
    """Both lists of the chosen SAE in full, a row per latent. Columns: latent (index), step (of the search, from 1),
    mean, low, high (mean gap and its interval, see `latents/lists.py`), p_max_t (family-wise p)."""
    tests: pd.DataFrame
    """A row per latent of the chosen SAE, as the stage `analyse_sae` wrote it. Columns: latent (index), mean_cls and
    mean_patch (mean activation on the class token and on patches of discovery images), firing (share of tokens). Then
    paired tests of two gaps, clothed minus semi-nude: of the activation (prefix `act_`), and of the effect on R, the
    log-probability of the true emotion (prefix `eff_`)."""
    sae: JumpReLUSAE
    pooled_dpath: Path | None = None
    """Where the pooled latents lie on disk; `pooled` reads them. None if the selection was opened without them."""

    @property
    def latents(self) -> Int[np.ndarray, " k"]:
        """Indices of the latents to edit, in the order of `edited`."""
        return self.edited["latent"].to_numpy(np.int64)

    @property
    def judged(self) -> str:
        """The condition in which an edit should gain: the losing one; `semi_nude` if CLIP reads both alike."""
        return self.losing or SEMI_NUDE

    @cached_property
    def pooled(self) -> PooledLatents:
        """Latents pooled over the tokens of each image that belongs to a pair, in the order of `Dataset.audit_rows`.

        Each latent has four values per image: activation on the class token, mean activation over patches, largest
        activation of a patch, and effect on the emotion readout. The values are read from disk at the first use.
        Raises PooledLatentsError if the file is damaged, SelectionError if it belongs to another SAE. Raises ValueError
        if the selection was opened without the pooled latents.
        """
        if self.pooled_dpath is None:
            raise ValueError("the selection was opened without the folder of its pooled latents")
        found = PooledLatents.load(self.pooled_dpath)
        if len(found.firing) != self.sae.d_sae:
            raise SelectionError(
                f"{self.pooled_dpath} has {len(found.firing)} latents, but the SAE has {self.sae.d_sae}; {REMEDY}"
            )
        return found

    @property
    def means(self) -> Float[np.ndarray, "2 latent"]:
        """Mean activation of each latent: on the class token (row 0), on patches (row 1).

        The means are over discovery images: images of the women on whom the latents are chosen.
        """
        return self.tests[["mean_cls", "mean_patch"]].to_numpy().T

    @property
    def ranked_once(self) -> Int[np.ndarray, " latent"]:
        """Indices of all latents, those that harm the emotion readout in the losing condition most first.

        A latent's effect is its first-order effect on R (log-probability of the true emotion, nats). The effect is
        measured once, with nothing edited. The latent comes first whose mean effect in the losing condition is lowest
        compared with the other condition.
        """
        sign = -1 if self.judged == SEMI_NUDE else 1  # eff_mean is clothed minus semi-nude
        return (sign * self.tests["eff_mean"].to_numpy()).argsort(kind="stable")


class SelectionFile(BaseModel):
    """The content of selection.json.

    layer, expansion: the chosen SAE. It reads the residual stream after block `layer` (from 1); it has `expansion`
        latents per dimension of the stream.
    edited_list: where the latents come from: `ranked`, `bias` or `perception`. The key in the file is `list`.
    latents: indices of the latents to edit.
    losing: the condition that CLIP reads worse on the women used for choosing, or `none`.
    gap: mean gap in R on these women, clothed minus semi-nude, nats: estimate, low, high.
    skill: accuracy in the condition read better, on a scale from chance (0) to certainty (1).
    why: the reason for the choice, in words.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    layer: Count
    expansion: Count
    edited_list: Annotated[EditedLatents, Field(alias="list")]
    latents: list[Annotated[int, Field(ge=0, lt=2**31)]]
    losing: Literal["semi_nude", "clothed", "none"]
    gap: dict[str, FiniteFloat]
    skill: FiniteFloat
    why: str

    @field_validator("latents")
    @classmethod
    def _distinct(cls, latents: list[int]) -> list[int]:
        if len(set(latents)) != len(latents):
            raise ValueError("names a latent twice")
        return latents


def read(directory: Path) -> SelectionFile:
    """Return the content of selection.json in `directory`. Raises SelectionError if it is missing or damaged."""
    inputs.remember_file(directory / "selection.json")
    try:
        return SelectionFile.model_validate_json((directory / "selection.json").read_bytes())
    except OSError as error:
        if faults.of_machine(error):
            raise
        raise SelectionError(f"{directory} holds no selection ({error}); {REMEDY}") from None
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise SelectionError(f"{directory / 'selection.json'} is damaged ({said}); {REMEDY}") from None


def load(directory: Path, by_image: Path | None = None) -> Selection:
    """Open the selection that the stage `select_sae` wrote into `directory`: the SAE, its latents and their tables.

    by_image: the folder in which `select_sae` wrote what the latents did on each image. Only `Selection.pooled` needs
        it, and reads it at the first use.
    Raises SelectionError if selection.json is missing or damaged, or if the parts do not belong together. Raises
    LatentsError if a table is missing or damaged, SAEError if the SAE is.
    """
    chosen = read(directory)
    found = Selection(
        layer=chosen.layer,
        losing=None if chosen.losing == "none" else chosen.losing,
        edited_list=chosen.edited_list,
        edited=lists.load(directory / "latents.csv"),
        lists={kind: lists.load(directory / f"{kind}.csv") for kind in get_args(LatentList)},
        tests=lists.read_table(directory / "tests.csv", TESTED),
        sae=JumpReLUSAE.load(directory / "sae"),
        pooled_dpath=by_image and by_image / "pooled.zarr",
    )
    if found.latents.tolist() != chosen.latents:
        raise SelectionError(f"{directory}: latents.csv and selection.json name other latents to edit; {REMEDY}")
    _check_parts(found, directory)
    return found


def _check_parts(found: Selection, directory: Path) -> None:
    """Raise SelectionError unless lists, tests and layer are those of the SAE."""
    d_sae, of_layer = found.sae.d_sae, found.sae.metadata.get("layer")
    if of_layer != found.layer:
        raise SelectionError(f"{directory}: an SAE of layer {of_layer}, chosen for layer {found.layer}; {REMEDY}")
    named = np.concatenate([found.latents, *(table["latent"] for table in found.lists.values())])
    if (named >= d_sae).any() or len(found.tests) != d_sae:
        raise SelectionError(
            f"{directory}: lists name latents to {named.max(initial=0)} and tests.csv has {len(found.tests)} rows, but "
            f"the SAE has {d_sae} latents; {REMEDY}"
        )

"""`data/selection`: the chosen SAE in its place, and its latents."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from stages.core import dataset, latents, sections, store, vit
from stages.core.codes import Codes
from stages.core.compute import ALONE, Ranks
from stages.core.intervene import Edit
from stages.core.sae import JumpReLUSAE
from stages.core.sections import Count, LatentList
from stages.core.splice import Arm, Splice

REMEDY = "rerun `dvc repro --force select_sae`"
TESTED = ["latent", "mean_cls", "mean_patch", "firing"]


class SelectionError(SystemExit):
    """A selection on disk that cannot be used. Exits with its path, the reason and the remedy."""


@dataclass(frozen=True)
class Selection:
    """What `select_sae` chose."""

    layer: int
    latents: Int[np.ndarray, " k"]
    """The latents to edit, strongest first; empty if none was significant."""
    edited_list: LatentList
    """The list they are from."""
    lists: dict[LatentList, pd.DataFrame]
    """Both lists as in `latents`, all of them."""
    tests: pd.DataFrame
    """A row per latent of the chosen SAE, as analysed."""
    sae: JumpReLUSAE
    codes_dpath: Path

    @cached_property
    def codes(self) -> Codes:
        """Of the audit images, read when they are asked for. Raises CodesError, or SelectionError for another SAE's."""
        found = Codes.load(self.codes_dpath)
        if len(found.firing) != self.sae.d_sae:
            raise SelectionError(
                f"{self.codes_dpath} has {len(found.firing)} latents, but the SAE has {self.sae.d_sae}; {REMEDY}"
            )
        return found

    @property
    def means(self) -> Float[np.ndarray, "2 latent"]:
        """Mean activation over discovery images: of the class token, and of patches."""
        return self.tests[["mean_cls", "mean_patch"]].to_numpy().T

    def splice(
        self,
        clip: vit.Clip,
        data: dataset.Dataset,
        activations_dpath: Path,
        batch_size: int,
        ranks: Ranks = ALONE,
    ) -> Splice:
        """CLIP with the chosen SAE in its place. Raises ModelError if the model lacks its layer."""
        clip.check_layer(self.layer)
        activations = store.open(activations_dpath / f"l{self.layer}.zarr", data)
        return Splice(clip, self.sae.to(clip.device), self.layer, data, activations, batch_size, ranks)

    def arm(self, splice: Splice, edit: sections.Edit, others: Int[np.ndarray, " k"] | None = None) -> Arm:
        """The edit of params.yaml, on the chosen latents or on others."""
        chosen = self.latents if others is None else others
        return splice.arm(Edit.of(edit, chosen, self.means, splice.clip.device), edit.scope)


class Chosen(BaseModel):
    """What stands in selection.json."""

    model_config = ConfigDict(frozen=True, strict=True)

    layer: Count
    expansion: Count
    edited_list: Annotated[LatentList, Field(alias="list")]
    latents: list[Annotated[int, Field(ge=0, lt=2**31)]]
    why: str

    @field_validator("latents")
    @classmethod
    def _distinct(cls, latents: list[int]) -> list[int]:
        if len(set(latents)) != len(latents):
            raise ValueError("names a latent twice")
        return latents


def read(directory: Path) -> Chosen:
    """What stands in selection.json. Raises SelectionError."""
    try:
        return Chosen.model_validate_json((directory / "selection.json").read_bytes())
    except OSError as error:
        raise SelectionError(f"{directory} holds no selection ({error}); {REMEDY}") from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise SelectionError(f"{directory / 'selection.json'} is damaged ({faults}); {REMEDY}") from None


def load(directory: Path) -> Selection:
    """Open what `select_sae` wrote. Raises SelectionError, or the error of the part that is damaged."""
    chosen = read(directory)
    found = Selection(
        layer=chosen.layer,
        latents=np.array(chosen.latents, dtype=np.int64),
        edited_list=chosen.edited_list,
        lists={kind: latents.load(directory / f"{kind}.csv") for kind in get_args(LatentList)},
        tests=latents.read_table(directory / "tests.csv", TESTED),
        sae=JumpReLUSAE.load(directory / "sae"),
        codes_dpath=directory / "codes.zarr",
    )
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

"""`data/selection`: the chosen SAE in its place, and its latents."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from stages.core import dataset, latents, params, store, vit
from stages.core.codes import Codes
from stages.core.intervene import Edit
from stages.core.params import LatentList
from stages.core.ranks import ALONE, Ranks
from stages.core.sae import JumpReLUSAE
from stages.core.splice import Arm, Splice


@dataclass(frozen=True)
class Selection:
    """What `select_sae` chose."""

    layer: int
    expansion: int
    latents: Int[np.ndarray, " k"]
    """The latents to edit, strongest first; empty if none was significant."""
    edited_list: LatentList
    """The list they are from."""
    lists: dict[LatentList, pd.DataFrame]
    """Both lists as in `latents`, all of them."""
    why: str
    tests: pd.DataFrame
    """A row per latent of the chosen SAE, as analysed."""
    sae: JumpReLUSAE
    codes: Codes

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
        """CLIP with the chosen SAE in its place."""
        activations = store.open(activations_dpath / f"l{self.layer}.zarr")
        return Splice(clip, self.sae.to(clip.device), self.layer, data, activations, batch_size, ranks)

    def arm(self, splice: Splice, edit: params.Edit, others: Int[np.ndarray, " k"] | None = None) -> Arm:
        """The edit of params.yaml, on the chosen latents or on others."""
        chosen = self.latents if others is None else others
        return splice.arm(Edit.of(edit, chosen, self.means, splice.clip.device), edit.scope)


def load(directory: Path) -> Selection:
    """Open what `select_sae` wrote."""
    chosen = json.loads((directory / "selection.json").read_text())
    return Selection(
        layer=chosen["layer"],
        expansion=chosen["expansion"],
        latents=np.array(chosen["latents"], dtype=np.int64),
        edited_list=chosen["list"],
        lists={kind: latents.load(directory / f"{kind}.csv") for kind in get_args(LatentList)},
        why=chosen["why"],
        tests=pd.read_csv(directory / "tests.csv"),
        sae=JumpReLUSAE.load(directory / "sae"),
        codes=Codes.load(directory / "codes.zarr"),
    )

"""The edit as a part of CLIP: a hook after one block. It needs only the edited latents of the SAE.

    model, _, preprocess = open_clip.create_model_and_transforms("local-dir:data/mitigated")
    mitigation.attach(model, "data/mitigated")

On disk, beside the model in open_clip's layout, lie `latents/`, an SAE of the edited latents alone in SAELens' format,
and `edit.json`. The reconstruction error is kept, so only what these latents write is changed.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stages.core.clip.vit import replaced_residual
from stages.core.latents import error_kept_edits
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.run.errors import StudyError
from stages.core.sae import JumpReLUSAE
from stages.core.schema import EditScope

EDIT_FNAME, LATENTS_DNAME, REFUSAL_FNAME = "edit.json", "latents", "not_exported.txt"
SCOPES = ("all", "cls", "patches")
KINDS = ("zero", "mean", "scale")


class MitigationError(StudyError):
    """An edit that a model cannot carry by itself, or a directory without a usable edit. The message says why."""


def save(directory: Path | str, sae: JumpReLUSAE, edit: LatentEdit, scope: EditScope, layer: int) -> None:
    """Write an edit of some latents of `sae` into `directory`, so that `attach` can put it into a model.

    sae: the SAE whose latents are edited.
    edit: the change of these latents' activations.
    scope: the tokens that the edit changes: `all`, `cls` (class token) or `patches`.
    layer: the block after which the edit acts, counted from 1.
    The edit is written to edit.json. An SAE with only the edited latents is written to the folder latents.
    Raises MitigationError if the edit needs the twin of each image (same woman, other condition) or its bust mask.
    """
    if edit.kind not in KINDS or scope not in SCOPES:
        raise MitigationError(
            f"edit.kind {edit.kind}, edit.scope {scope}: needs the twin or the bust mask of each image; a model that "
            f"carries its edit takes edit.kind zero, mean or scale, and edit.scope {', '.join(SCOPES)}"
        )
    edited_only = JumpReLUSAE(sae.d_in, len(edit.latents), {"latents": edit.latents.tolist(), "layer": layer})
    for name, values in (
        ("W_enc", sae.W_enc[:, edit.latents]),
        ("b_enc", sae.b_enc[edit.latents]),
        ("W_dec", sae.W_dec[edit.latents]),
        ("threshold", sae.threshold[edit.latents]),
        ("b_dec", sae.b_dec),
    ):
        getattr(edited_only, name).data.copy_(values)
    edited_only.save(Path(directory) / LATENTS_DNAME)
    means = None if edit.means is None else edit.means.tolist()
    described = {"layer": layer, "scope": scope, "kind": edit.kind, "factor": edit.factor, "means": means}
    (Path(directory) / EDIT_FNAME).write_text(json.dumps(described, indent=2) + "\n")


def attach(model: Any, directory: Path | str) -> ExitStack:
    """Put the edit in `directory` into an open_clip model. From now on the edit is part of every forward pass.

    model: the model that the edit was made for; the model is changed in place. It may be moved to another device or to
        another precision afterwards: the edit follows, and is itself computed in float32.
    directory: a folder with an edit that `save` wrote.
    Returns a context manager. Its method `close()` removes the edit from the model. It is also `model.mitigation`.
    Raises MitigationError if the directory holds no edit or a damaged one. Raises MitigationError too if the model has
    no block with the edit's number. Raises SAEError if the saved latents are damaged.
    """
    directory = Path(directory)
    if not (directory / EDIT_FNAME).is_file():
        refusal = directory / REFUSAL_FNAME
        why = refusal.read_text() if refusal.is_file() else "dvc repro export_clip"
        raise MitigationError(f"{directory} holds no {EDIT_FNAME}: {why}")
    sae = JumpReLUSAE.load(directory / LATENTS_DNAME)
    try:
        described = json.loads((directory / EDIT_FNAME).read_text())
        scope, layer, means = described["scope"], int(described["layer"]), described["means"]
        edit = LatentEdit(
            latents=torch.arange(sae.d_sae),
            kind=described["kind"],
            factor=float(described["factor"]),
            means=None if means is None else torch.tensor(means).reshape(2, sae.d_sae),
        )
        if scope not in SCOPES or edit.kind not in KINDS or (edit.kind == "mean" and means is None):
            raise ValueError(f"kind {edit.kind!r}, scope {scope!r}, means {means!r}")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:  # RuntimeError: means of a wrong shape
        raise MitigationError(
            f"{directory / EDIT_FNAME} is damaged ({error!r}); rerun `dvc repro --force export_clip`"
        ) from None

    if not 1 <= layer <= len(model.visual.transformer.resblocks):
        raise MitigationError(
            f"{directory / EDIT_FNAME}: the model has no block {layer}; attach it to the one beside it"
        )

    def change(x: Float[Tensor, "n token d_in"]) -> Float[Tensor, "n token d_in"]:
        tokens = error_kept_edits.tokens_in_scope(scope, len(x), x.shape[1]).to(x.device)
        full = x.float()
        changed = error_kept_edits.edited(full, sae.to(x.device), edit.to(x.device), where=tokens)
        return x + (changed - full).to(x.dtype)  # only the change is rounded to float32

    model.mitigation = ExitStack()
    model.mitigation.enter_context(replaced_residual(model.visual, layer, change))
    return model.mitigation

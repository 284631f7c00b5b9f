"""The inputs of the stages: a sound one of each kind, how it is damaged, and the stage's own way to read it."""

from __future__ import annotations

from functools import partial

from tests.soak.inputs import arrays, clip, export, folder, parameters, resumed, sae, scaffold, selection
from tests.soak.inputs.kinds import Input, write_params

FOLDER_OUTS = ("data/dataset", "metrics", "plots")
CLIP_OUTS = ("data/clip", "metrics/prepare_clip.json", "plots/prepare_clip.csv")

INPUTS: dict[str, Input] = {
    "params.yaml": Input(write_params, parameters.damage, parameters.use),
    "a ready study over params.yaml": Input(write_params, parameters.damage, parameters.use_study, ("params.yaml",)),
    "manifest": Input(folder.make, folder.damage_manifest, folder.use, FOLDER_OUTS),
    "image": Input(folder.make, folder.damage_image, folder.use, FOLDER_OUTS),
    "mask": Input(folder.make, partial(folder.damage_image, mask=True), folder.use, FOLDER_OUTS),
    "scaffold": Input(scaffold.make, scaffold.damage, scaffold.use, ("raw/manifest.csv",)),
    "SAE": Input(sae.make, sae.damage, sae.use),
    "CLIP, prepared": Input(clip.make, clip.damage, clip.use),
    "CLIP, a checkpoint": Input(clip.make_checkpoint, clip.damage_checkpoint, clip.use_checkpoint, CLIP_OUTS),
    "activations": Input(arrays.make_store, arrays.damage_store, arrays.use_store),
    "dataset": Input(arrays.make_dataset, arrays.damage_dataset, arrays.use_dataset),
    "codes": Input(arrays.make_codes, arrays.damage_codes, arrays.use_codes),
    "selection": Input(selection.make, selection.damage, selection.use),
    "export": Input(export.make, export.damage, export.use, ("data/mitigated",)),
    "a run to resume": Input(resumed.make, resumed.damage, resumed.use, (".ckpt",)),
}

"""What `export_clip` makes a model of, and the model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.random import Generator

from stages import export_clip
from stages.core import schema
from stages.core.clip import vit
from stages.core.intervention import mitigation
from stages.core.sae import JumpReLUSAE
from tests.soak.damage import pick, spoil_file, spoil_json
from tests.soak.inputs import clip, parameters, selection
from tests.soak.inputs.kinds import Damage, digest, run, write_params

MEASURED_FPATH = Path("metrics/full/ablate.json")


def make() -> None:
    selection.make()
    clip.make()
    write_params()
    MEASURED_FPATH.parent.mkdir(parents=True)
    measured = {"edit": {"gain": 0.1}, "guardrails": {"cost": 0.0}, "reliance": {"bust": 0.2}}
    MEASURED_FPATH.write_text(json.dumps(measured))


def damage(rng: Generator) -> Damage:
    kind = pick(rng, ("metrics", "metrics", "metrics file", "selection", "params", "edit"))
    if kind == "selection":
        return selection.damage(rng)
    if kind == "params":
        return parameters.damage(rng)
    if kind == "edit":
        choices = (get_args(schema.EditKind), (0.0, 0.5, 1e308), get_args(schema.EditScope))
        edit = dict(zip(("kind", "factor", "scope"), (pick(rng, values) for values in choices), strict=True))
        write_params(edit=edit)
        return Damage(f"no damage, another edit: {edit}", ())
    return Damage(
        {"metrics": spoil_json, "metrics file": spoil_file}[kind](MEASURED_FPATH, rng), (str(MEASURED_FPATH),)
    )


def check_numbers(tree: Any) -> None:
    """Metrics are nested mappings of finite numbers."""
    for value in tree.values():
        if isinstance(value, dict):
            check_numbers(value)
        else:
            assert type(value) in (int, float) and math.isfinite(value), f"measured {value!r:.60}"


def use() -> str:
    """Exports, and opens what was exported: the model with its edit in place, or the reason why there is none."""
    run(export_clip)
    exported = export_clip.MITIGATED_DPATH
    assert vit.fingerprint(exported) == vit.fingerprint(clip.DPATH)
    if (exported / mitigation.REFUSAL_FNAME).exists():
        said = (exported / mitigation.REFUSAL_FNAME).read_text()
        assert "edit.kind" in said and "edit.scope" in said and not (exported / mitigation.EDIT_FNAME).exists(), said
        return digest([ord(letter) for letter in said])
    check_numbers(json.loads((exported / "guardrails.json").read_text()))
    edit = json.loads((exported / mitigation.EDIT_FNAME).read_text())
    latents = JumpReLUSAE.load(exported / mitigation.LATENTS_DNAME)
    assert len(latents.metadata["latents"]) == latents.d_sae and np.shape(edit["means"]) == (2, latents.d_sae), edit
    model = vit.load(exported, clip.COMPUTE)
    pixels = model.pixels(np.full((1, model.image_size, model.image_size, 3), 128, np.uint8))
    with mitigation.attach(model.model, exported):
        assert model.embed(pixels).shape == (1, clip.MODEL["embed_dim"])
    numbers = [edit["layer"], edit["factor"], edit["means"], *latents.state_dict().values()]
    return digest(np.concatenate([np.ravel(value) for value in numbers]))

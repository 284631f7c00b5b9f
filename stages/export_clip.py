"""The audited CLIP with the edit in place -> a model for use elsewhere.

reads    data/selection, data/clip, metrics/full/ablate.json
writes   data/mitigated (open_clip's `local-dir:` layout, the edited latents, edit.json, guardrails.json; or the reason
         why the edit of params.yaml cannot be exported with a model)
claims   nothing new: guardrails.json holds the gains and costs of this edit as the causal test measured them

    model, _, preprocess = open_clip.create_model_and_transforms("local-dir:data/mitigated")
    mitigation.attach(model, "data/mitigated")          # from stages.core import mitigation
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from stages.core import mitigation
from stages.core.clip import vit
from stages.core.latents import selection
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.run import inputs, outs, params
from stages.core.run.errors import run_command
from stages.core.schema import Edit

CLIP_DPATH, SELECTION_DPATH, MITIGATED_DPATH = Path("data/clip"), Path("data/selection"), Path("data/mitigated")
ABLATE_FPATH = Path("metrics/full/ablate.json")


def measured() -> dict[str, Any]:
    """Read what the causal test measured for the edit (metrics/full/ablate.json).

    Returns a dictionary with three keys:
        edit          gain on semi-nude images and loss on clothed images by the edit, and the fall of the reliance on
                      the bust. Gain and fall are compared with those by edits of random sets of latents
        guardrails    cosine of edited and original image embeddings; accuracy of the model without the edit; and the
                      change of R by an edit of no latent, which should be about 0
        reliance      change of accuracy and of R when the bust or the face is greyed out. There is one value without
                      the edit and one with the edit
    R is the log-probability of the true emotion, nats. The keys inside are those of `CausalTest.judge_edit`,
    `CausalTest.guardrails` and `CausalTest.summarise_reliance`.
    Raises UnreadableError if one of these keys is absent.
    """
    found = outs.read_metrics(ABLATE_FPATH, "ablate")
    return {key: found[key] for key in ("edit", "guardrails", "reliance")}


def main() -> None:
    params.command_line(__doc__).parse_args()
    edit = params.load(Edit)
    chosen, guardrails = selection.load(SELECTION_DPATH), measured()
    change = LatentEdit.from_params(edit, chosen.latents, chosen.means, torch.device("cpu"))
    with outs.atomic_output(MITIGATED_DPATH) as directory:
        inputs.remember_file(CLIP_DPATH / vit.WEIGHTS_FNAME)
        shutil.copytree(CLIP_DPATH, directory)
        try:
            mitigation.save(directory, chosen.sae, change, edit.scope, chosen.layer)
        except mitigation.MitigationError as refusal:
            (directory / mitigation.REFUSAL_FNAME).write_text(f"{refusal}\n")
            return print(refusal)
        (directory / "guardrails.json").write_text(json.dumps(guardrails, indent=2) + "\n")


if __name__ == "__main__":
    run_command(main)

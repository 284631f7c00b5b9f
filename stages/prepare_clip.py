"""open_clip weights, or the demo model trained here -> the CLIP to audit.

reads    a local checkpoint or open_clip's pretrained weights (clip.source: open_clip); nothing (demo)
writes   data/clip in open_clip's `local-dir:` layout, metrics/prepare_clip.json, plots/prepare_clip.csv
claims   `open_clip.create_model_and_transforms("local-dir:data/clip")` gives the audited model, with its own
         preprocessing and activation function; weights are safetensors, never pickle
"""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from stages.core.clip import hub, vit
from stages.core.run import faults, inputs, outs, params, tensors
from stages.core.run.compute import set_up_device
from stages.core.run.errors import run_command
from stages.core.schema import Clip, Compute, Demo, Ingest, World

CLIP_DPATH = Path("data/clip")
METRICS_FPATH = Path("metrics/prepare_clip.json")
PLOT_FPATH = Path("plots/prepare_clip.csv")


def from_open_clip(config: Clip) -> tuple[Any, dict[str, Any]]:
    """Load the open_clip model that params.yaml names.

    config: the architecture, and the weights: a tag of open_clip, a .safetensors file, or `random`.
    Returns the model, and open_clip's description of its architecture (`model_cfg`).
    Raises ModelError in these cases:
        the architecture or the tag is unknown
        a tower of the architecture comes from another library
        the checkpoint is a file but not safetensors
        the weights are OpenAI's, but the architecture lacks quick-GELU
        the weights have to be downloaded, but the Hugging Face Hub does not answer within seconds
        the weights cannot be loaded or are not finite
    """
    open_clip = vit.import_open_clip()

    if config.architecture not in open_clip.list_models():  # no folder or repository: it may hold a pickle
        raise vit.ModelError(f"clip.architecture: open_clip knows no {config.architecture!r}")
    model_cfg = open_clip.get_model_config(config.architecture)
    vit.check_towers(model_cfg, f"clip.architecture: {config.architecture}")
    pretrained = None if config.pretrained == "random" else config.pretrained
    if pretrained is not None and not _is_file(pretrained):
        tags = open_clip.list_pretrained_tags_by_model(config.architecture)
        if pretrained not in tags:
            found = ", ".join(tags) or "none"
            raise vit.ModelError(
                f"clip.pretrained: {pretrained!r} is neither a file nor a tag of {config.architecture} (tags: {found})"
            )
    elif pretrained is not None and Path(pretrained).suffix != ".safetensors":
        raise vit.ModelError(
            f"clip.pretrained: {pretrained} is not .safetensors; convert it first, pickle is never read"
        )
    if pretrained is not None and _is_file(pretrained):
        inputs.remember_file(Path(pretrained))
        Path(pretrained).open("rb").close()  # safetensors does not find a file that it may not read
    if pretrained == "openai" and not model_cfg.get("quick_gelu"):
        raise vit.ModelError(
            f"clip.architecture: OpenAI's weights need quick-GELU; use {config.architecture}-quickgelu"
        )
    if pretrained is not None:
        hub.check_within_reach(config.architecture, pretrained)
    torch.manual_seed(0)  # for `random`
    try:
        model = open_clip.create_model(config.architecture, pretrained=pretrained)
    except Exception as error:  # both libraries raise many kinds, such as AssertionError
        if faults.of_machine(error):
            raise
        raise vit.ModelError(
            f"clip.pretrained: {config.pretrained} cannot be loaded into {config.architecture}: {error}"
            + hub.without_a_network(config.architecture, config.pretrained)
        ) from None
    vit.check_finite(model, f"clip.pretrained: {config.pretrained}", "take another checkpoint")
    return model, model_cfg


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def save(directory: Path, model: Any, model_cfg: dict[str, Any], preprocess_cfg: dict[str, Any]) -> None:
    """Write a model into `directory` in open_clip's `local-dir:` layout: float32 weights (safetensors) and settings.

    model: an open_clip model.
    model_cfg: open_clip's description of the architecture.
    preprocess_cfg: open_clip's settings of the preprocessing, such as mean and std of the pixels.
    """
    weights = {name: tensor.contiguous().float() for name, tensor in model.state_dict().items()}
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    with outs.atomic_output(directory) as unfinished:
        unfinished.mkdir()
        tensors.write(unfinished / vit.WEIGHTS_FNAME, weights)
        (unfinished / vit.CONFIG_FNAME).write_text(json.dumps(config, indent=2) + "\n")


def size(model: Any) -> dict[str, Any]:
    """Describe the size of an open_clip model's vision tower, for a metrics file.

    model: the open_clip model.
    Returns
        vision_parameters    number of parameters of the vision tower
        vision_layers        number of blocks
        vision_width         width of the residual stream
        tokens               number of tokens per image: patches and class token
        image_size           side of the input image, in pixels
        logit_scale          the factor on cosines before the softmax
    """
    visual = model.visual
    return {
        "vision_parameters": sum(p.numel() for p in visual.parameters()),
        "vision_layers": len(visual.transformer.resblocks),
        "vision_width": visual.transformer.width,
        "tokens": visual.grid_size[0] * visual.grid_size[1] + 1,
        "image_size": visual.image_size[0],
        "logit_scale": model.logit_scale.exp().item(),
    }


def main() -> None:
    params.command_line(__doc__).parse_args()
    compute, ingest, clip, demo_params, world_params = params.load(Compute, Ingest, Clip, Demo, World)
    device = set_up_device(compute)
    model: Any
    metrics: dict[str, dict[str, Any]] = {}
    if clip.source == "demo":
        vit.import_open_clip()
        from stages.core.planted import demo, world

        expressions = world.Expressions.from_params(ingest.emotions, world_params.intensities, world_params.ambiguity)
        trained = demo.train(demo_params, expressions, ingest.image_size, device)
        model, history = trained.model, trained.history
        model_cfg = demo.architecture(demo_params, ingest.image_size)
        preprocess_cfg = demo.PREPROCESSING
        metrics["training"] = trained.as_metrics()
    else:
        model, model_cfg = from_open_clip(clip)
        history, preprocess_cfg = pd.DataFrame(columns=["step", "loss", "image_accuracy"]), model.visual.preprocess_cfg
    vit.check_supported(model.visual)
    save(CLIP_DPATH, model, model_cfg, preprocess_cfg)
    outs.write_metrics(METRICS_FPATH, {"model": size(model), **metrics})
    outs.write_table(PLOT_FPATH, history)


if __name__ == "__main__":
    run_command(main)

"""CLIP: as `prepare_clip` left it, and the checkpoint that it is to prepare."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from safetensors.torch import save_file

from stages import prepare_clip
from stages.core.clip import vit
from stages.core.schema import Compute
from tests.soak.damage import NOISE, Bomb, pick, spoil_file
from tests.soak.inputs.kinds import D_IN, SIDE, Damage, digest, run, write_params
from tests.soak.inputs.models import damage_model, damage_tensors

DPATH = Path("data/clip")
ARCHITECTURE = "soak-tiny"
COMPUTE = Compute(device="cpu", precision="float32", threads=1)
MODEL = {
    "embed_dim": D_IN,
    "vision_cfg": {"image_size": SIDE, "patch_size": 8, "width": D_IN, "layers": 2, "head_width": 4},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


@cache
def weights() -> dict[str, torch.Tensor]:
    from open_clip.model import CLIP

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CLIP(**MODEL).state_dict()


def make() -> None:
    DPATH.mkdir(parents=True)
    save_file(weights(), DPATH / "open_clip_model.safetensors")
    preprocessing = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    config = {"model_cfg": MODEL, "preprocess_cfg": preprocessing}
    (DPATH / "open_clip_config.json").write_text(json.dumps(config))


MODEL_KEYS = (
    ("text_cfg", "hf_tokenizer_name", "x/y"),
    ("text_cfg", "hf_model_name", "roberta-base"),
    ("text_cfg", "tokenizer_kwargs", {"trust_remote_code": True}),
    ("text_cfg", "tokenizer_kwargs", {"bpe_path": "/etc/hostname"}),
    ("text_cfg", "pool_type", "none"),
    ("vision_cfg", "timm_model_name", "vit_tiny_patch16_224"),
    ("vision_cfg", "pool_type", "avg"),
    ("vision_cfg", "output_tokens", True),
    ("vision_cfg", "attentional_pool", True),
    ("vision_cfg", "no_ln_pre", True),
)


def damage(rng: Generator) -> Damage:
    config_fpath, weights_fpath = DPATH / "open_clip_config.json", DPATH / "open_clip_model.safetensors"
    kind = pick(rng, ("tensors", "weights", "config", "config", "config", "config file", "keys", "pickle"))
    if kind == "keys":
        tree = json.loads(config_fpath.read_text())
        part, key, value = pick(rng, MODEL_KEYS)
        tree["model_cfg"][part][key] = value
        config_fpath.write_text(json.dumps(tree))
        return Damage(f"{part}.{key}: {value}", (str(DPATH), "vision tower"))
    if kind == "pickle":
        weights_fpath.unlink()
        name = pick(rng, ("open_clip_pytorch_model.bin", "model.pth", "open_clip_model.npz"))
        torch.save(Bomb(), DPATH / name)
        return Damage(f"{name} for the weights", (str(DPATH),))
    return Damage(damage_model(kind, config_fpath, weights_fpath, rng), (str(DPATH), "vision tower"))


def use() -> str:
    clip = vit.load(DPATH, COMPUTE)
    images = np.full((2, clip.image_size, clip.image_size, 3), 128, np.uint8)
    embeddings, kept = clip.residuals(clip.pixels(images), [1])
    texts = clip.text(["a calm woman", "x"])
    assert embeddings.shape == texts.shape == (2, embeddings.shape[1]) and kept[1].ndim == 3
    assert len(vit.fingerprint(DPATH)) == 64
    return digest(embeddings, kept[1], texts, clip.logit_scale)


def make_checkpoint() -> None:
    import open_clip

    Path("architecture").mkdir()
    Path(f"architecture/{ARCHITECTURE}.json").write_text(json.dumps(MODEL))
    open_clip.add_model_config(f"architecture/{ARCHITECTURE}.json")
    save_file(weights(), "weights.safetensors")
    write_checkpoint_params("weights.safetensors")


def write_checkpoint_params(pretrained: str, architecture: str = ARCHITECTURE) -> None:
    clip = {"source": "open_clip", "architecture": architecture, "pretrained": pretrained}
    write_params(clip=clip, compute={"device": "cpu", "threads": 1})


def damage_checkpoint(rng: Generator) -> Damage:
    fpath = Path("weights.safetensors")
    kind = pick(rng, ("tensors", "tensors", "file", "file", "pickle", "name", "architecture"))
    named = ("clip.pretrained",)
    if kind in ("tensors", "file"):
        return Damage({"tensors": damage_tensors, "file": spoil_file}[kind](fpath, rng), named)
    if kind == "pickle":
        name = pick(rng, ("weights.pt", "weights.bin", "weights.SAFETENSORS", "weights", "weights.npz", fpath.name))
        fpath.unlink()
        torch.save(Bomb(), name)
        write_checkpoint_params(name)
        return Damage(f"{name} is a pickle", named)
    if kind == "name":
        name = pick(rng, [noise for noise in NOISE if isinstance(noise, str)] + ["architecture", "weights"])
        write_checkpoint_params(name)
        return Damage(f"pretrained {name!r:.60}", named)
    Path("here").mkdir()
    Path("here/open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL}))
    torch.save(Bomb(), "here/open_clip_pytorch_model.bin")
    name = pick(rng, ("local-dir:here", "local-dir:", "hf-hub:x/y", "hf-hub:", "", "\0", "RN50", "../x", "ViT-B/32"))
    write_checkpoint_params("random" if name == "RN50" else "weights.safetensors", name)
    return Damage(f"architecture {name!r}", ("clip.architecture", "clip.pretrained", "vision tower"))


def use_checkpoint() -> str:
    run(prepare_clip)
    return use()

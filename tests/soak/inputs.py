"""The inputs of the stages: a sound one of each kind, how it is damaged, and the stage's own way to read it."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import matplotlib.font_manager  # noqa: F401 (it writes its cache when it is first imported)
import numpy as np
import pandas as pd
import torch
import yaml
from numpy.random import Generator
from PIL import Image
from safetensors.torch import load_file, save_file

from stages import export_clip, ingest, prepare_clip, train_sae
from stages.core import dataset, params, selection, store, vit
from stages.core.checkpoint import Checkpoint
from stages.core.codes import FIELDS, Codes
from stages.core.latents import COLUMNS
from stages.core.params import Point
from stages.core.sae import JumpReLUSAE
from stages.studies.apply import apply
from tests.imports import ROOT
from tests.soak.damage import MARKER, NOISE, Bomb, pick, spoil_bytes, spoil_file, spoil_json, spoil_tree

D_IN, D_SAE, N_IMAGES, N_TOKENS, SIDE = 8, 16, 5, 5, 16
ARCHITECTURE = "soak-tiny"
COMPUTE = params.Compute(device="cpu", precision="float32", threads=1)
MODEL = {
    "embed_dim": D_IN,
    "vision_cfg": {"image_size": SIDE, "patch_size": 8, "width": D_IN, "layers": 2, "head_width": 4},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


@dataclass(frozen=True)
class Damage:
    """What was done to an input."""

    what: str
    named: tuple[str, ...]
    """Words one of which a refusal must hold."""
    must_show: bool = False
    """Whether anything but the sound content, if accepted, is a failure."""


@dataclass(frozen=True)
class Input:
    """One kind of input, in a folder of its own that is the working directory of all three."""

    make: Callable[[], None]
    damage: Callable[[Generator], Damage]
    use: Callable[[], str]
    """Reads it as the stages do. Returns a digest of what was read; raises AssertionError if that is not sound."""
    outs: tuple[str, ...] = ()


def digest(*arrays: Any) -> str:
    """Of arrays, which must hold finite numbers and at least one of them."""
    found = hashlib.sha256()
    for array in map(np.asarray, arrays):
        assert array.size and np.isfinite(array).all(), f"{array.shape} {array.dtype}: not finite, or empty"
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def write_params(**changes: dict[str, Any]) -> None:
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in changes.items():
        given[section].update(values)
    Path("params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))


# params.yaml


YAML_NOISE = (
    "a: [",
    "\t",
    "- 1\n- 2",
    "compute: 2001-99-99",
    "compute: !!int x",
    "compute: !!python/object/apply:os.mkdir [" + MARKER + "]",
    "{[1]: 2}",
    "compute: &a [*a]",
    "1: 2\nx: 3\nnull: 4",
    "a: &a [" + "x," * 9 + "]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefgh")),
    "grid:\n  layers: &l [&m [" + "1," * 9 + "]" + ", *m" * 99 + "]\n  expansions: [*l" + ", *l" * 99 + "]",
    "[" * 3000,
    "grid:\n  layers:\n"
    + "".join(f"  - &{b} [{f'*{a},' * 9}]\n" for a, b in pairwise("abcdefghijk")).replace("*a", "x"),
)  # fmt: skip


def damage_params(rng: Generator) -> Damage:
    fpath = Path("params.yaml")
    if rng.random() < 0.2:
        text = fpath.read_text()
        if rng.random() < 0.5:
            noise = pick(rng, YAML_NOISE)
            fpath.write_text(f"{text}\n{noise}\n" if rng.random() < 0.3 else noise)
            return Damage(f"YAML {noise[:80]!r}", ("params.yaml",))
        return Damage(spoil_file(fpath, rng), ("params.yaml",))
    tree = yaml.safe_load(fpath.read_text())
    path = spoil_tree(tree, rng)
    fpath.write_text(yaml.safe_dump(tree, sort_keys=False))
    return Damage(f"{path}: {tree.get(path[0])}", (str(path[1] if len(path) > 1 else path[0]), "unknown section"))


def finite(value: Any) -> None:
    """Floats are numbers, and integers fit the machine's."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            finite(part)
    elif isinstance(value, float):
        assert np.isfinite(value), value


def use_params() -> str:
    loaded = params.load(*params.SECTIONS)
    for name in params.SECTIONS:
        values = getattr(loaded, name).model_dump()
        finite(values)
        if "seed" in values:
            torch.Generator().manual_seed(values["seed"])
    assert loaded.ingest.prompt.format(emotion="calm")
    return ""


def use_study() -> str:
    apply("planted")
    return use_params()


# a folder of images


def picture(rng: Generator, size: tuple[int, int] = (20, 16), mode: str = "RGB") -> Image.Image:
    return Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).convert(mode)


def make_folder() -> None:
    """Two women in both conditions, with masks, and a corpus image."""
    write_params(ingest={"source": "folder", "folder": "raw", "image_size": SIDE, "max_megapixels": 0.01})
    rng, rows, raw = np.random.default_rng(0), [], Path("raw")
    raw.mkdir()
    for woman in ("anna", "bea"):
        for condition in dataset.CONDITIONS:
            stem = f"{woman}_{condition}"
            picture(rng).save(raw / f"{stem}.png")
            mask = Image.new("L", (20, 16), 0)
            mask.paste(255, (5, 4, 12, 10))
            for region in dataset.REGIONS:
                mask.save(raw / f"{stem}_{region}.png")
            masks = {f"{region}_mask": f"{stem}_{region}.png" for region in dataset.REGIONS}
            rows.append({"image": f"{stem}.png", "identity": woman, "condition": condition, "emotion": "sad", **masks})
    picture(rng).save(raw / "other.png")
    rows.append({"image": "other.png"})
    pd.DataFrame(rows).to_csv(raw / "manifest.csv", index=False)


CELLS = (
    *("", " ", "..", ".", "/", "../secret.png", "/etc/hostname", "raw", "a\0b", "x" * 300, "x" * 5000, "-1", "nan"),
    *("masks/../other.png", "~", "a\nb", '"', "a,b", "é", "e\u0301", "=1+1", "\u202e", "{emotion}", "other.png"),
    *("anna", "bea", "sad", "happy", "clothed", "semi_nude", "CLOTHED", "anna_clothed.png", "loop.png", "out.png"),
    "./anna_clothed.png",
)  # fmt: skip


def damage_manifest(rng: Generator) -> Damage:
    fpath = Path("raw/manifest.csv")
    Path("raw/loop.png").symlink_to("loop.png")
    Path("raw/out.png").symlink_to("../params.yaml")
    kind = pick(rng, ("cell",) * 6 + ("bytes",) * 3 + ("row", "column", "text"))
    if kind == "bytes":
        return Damage(spoil_file(fpath, rng), ("manifest.csv",))
    if kind == "text":
        return Damage(spoil_text(fpath, rng), ("manifest.csv",))
    table = pd.read_csv(fpath, dtype=str, keep_default_na=False)
    row, column = int(rng.integers(len(table))), pick(rng, table.columns)
    if kind == "cell":
        table.loc[row, column] = what = pick(rng, CELLS)
    elif kind == "row":
        table = pick(
            rng, (table.drop(index=row), pd.concat([table, table.iloc[[row]]]), table.iloc[:0], table.iloc[::-1])
        )
        what = f"{len(table)} rows"
    else:
        table = pick(
            rng, (table.drop(columns=column), table.rename(columns={column: "image"}), table.assign(extra="x"))
        )
        what = f"columns {list(table.columns)}"
    table.to_csv(fpath, index=False)
    return Damage(f"{kind} {row} {column}: {what!r:.80}", ("manifest.csv",))


def spoil_text(fpath: Path, rng: Generator) -> str:
    """The same table as other programs write it, or somebody's hand."""
    text = fpath.read_text()
    lines = text.splitlines()
    kind, spoilt = pick(
        rng,
        {
            "utf-16": text.encode("utf-16"),
            "latin-1": text.replace("anna", "änna").encode("latin-1"),
            "semicolons": text.replace(",", ";").encode(),
            "another field in each row": "\n".join([lines[0], *(f"{line},x" for line in lines[1:])]).encode(),
            "another field in one row": "\n".join([*lines[:-1], f"{lines[-1]},x"]).encode(),
            "short row": "\n".join([*lines[:-1], "other.png"]).encode(),
            "header alone": f"{lines[0]}\n".encode(),
            "open quote": text.replace("anna", '"anna', 1).encode(),
            "nul": text.replace("anna", "an\0na", 1).encode(),
            "old Macintosh": text.replace("\n", "\r").encode(),
            "header twice": "\n".join([lines[0], *lines]).encode(),
            "empty rows": text.replace("\n", "\n\n").encode(),
        }.items(),
    )
    fpath.write_bytes(spoilt)
    return kind


FOREIGN: dict[str, bytes] = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 16\n("
    + MARKER.encode()
    + b") (w) file closefile\nshowpage\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>',
    "pdf": b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>",
    "ppm": b"P6 99999999 99999999 255\n",
    "pickle": pickle.dumps(Bomb()),
    "fits": b"SIMPLE  =                    T" + b" " * 50 + b"END",
    "webp": b"RIFF\xff\xff\xff\xffWEBPVP8L" + b"\xff" * 40,
    "gif": b"GIF89a\xff\xff\xff\xff\xf7\x00\x00",
    "bmp": b"BM" + struct.pack("<IIIIiiHHI", 99, 0, 54, 40, 2**31 - 1, -(2**31), 1, 24, 0) + b"\0" * 40,
    "tiff": b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 60,
}
SAVED: dict[str, tuple[str, ...]] = {
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "JPEG": ("RGB", "L", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("RGB", "CMYK", "F", "I", "I;16", "LAB", "YCbCr", "1"),
    "BMP": ("RGB", "L", "P"),
    "GIF": ("P", "L"),
}
SIZES = ((20, 16), (20, 16), (1, 1), (1, 900), (900, 1), (16, 20), (2, 2))


def damage_image(rng: Generator, *, mask: bool = False) -> Damage:
    """Another file in place of an image or a mask: foreign, of an unusual kind, or broken."""
    name = "anna_clothed_bust.png" if mask else pick(rng, ("anna_clothed.png", "other.png"))
    fpath = Path("raw") / name
    kind = pick(rng, ("foreign", "header", "kept", "broken", "broken", "broken"))
    if kind == "foreign":
        what, data = pick(rng, FOREIGN.items())
        fpath.write_bytes(data)
    elif kind == "header":
        sides = tuple(int(side) for side in rng.choice([0, 1, 16, 20, 5000, 2**31 - 1], 2))
        what = f"PNG of {sides}"
        fpath.write_bytes(png_of(fpath.read_bytes(), *sides))
    else:
        what = save_unusual(fpath, rng)
    if kind == "broken":
        what = f"{what}, {spoil_file(fpath, rng)}"
    return Damage(f"{name}: {what}", ("row 6" if name == "other.png" else "row 3",))


def save_unusual(fpath: Path, rng: Generator) -> str:
    """A picture in some format, mode and size; some animated, some turned by their EXIF tag."""
    form = pick(rng, SAVED)
    mode, size = pick(rng, SAVED[form]), pick(rng, SIZES)
    image = picture(rng, size, "L" if mode in ("F", "I", "I;16") else "RGB").convert(mode)
    options: dict[str, Any] = {}
    if form in ("PNG", "WEBP", "GIF", "TIFF") and rng.random() < 0.3:
        options = {"save_all": True, "append_images": [picture(rng, size, image.mode if mode != "I;16" else "L")]}
    elif form in ("PNG", "JPEG", "WEBP", "TIFF"):
        exif = Image.Exif()
        exif[0x0112] = pick(rng, (1, 3, 6, 8, 0, 99, "x"))
        options = (
            {"exif": exif.tobytes()} if isinstance(exif[0x0112], int) else {"exif": b"Exif\0\0II*\0" + rng.bytes(40)}
        )
    try:
        image.save(fpath, form, **options)
    except (OSError, ValueError, TypeError):  # not every format takes every option
        picture(rng, size).save(fpath, "PNG")
    return f"{form} {mode} {size} {list(options)}"


def png_of(data: bytes, width: int, height: int) -> bytes:
    """A PNG file whose header claims another size, with the right checksum."""
    header = data[12:16] + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def use_folder() -> str:
    with mock.patch.object(sys, "argv", ["ingest"]):
        ingest.main()
    return use_dataset()


def use_dataset() -> str:
    data = dataset.load(Path("data/dataset"))
    rows = np.arange(len(data.table))
    images, audit = data.images(rows), data.audit_rows()
    masks = [data.mask(region, audit) for region in dataset.REGIONS]
    side = data.image_size
    assert images.shape == (len(rows), side, side, 3) and images.dtype == np.uint8, images.shape
    assert all(mask.shape == (len(audit), side, side) and mask.any((1, 2)).all() for mask in masks), "an empty mask"
    pairs = data.pairs()
    assert len(pairs) and not pairs.isna().to_numpy().any(), pairs
    assert (data.emotion_index(audit) >= 0).all() and all(data.prompts.values()) and len(data.sha256) == 64
    return digest(images, *masks, pairs[list(dataset.CONDITIONS)].to_numpy())


PATTERNS = (
    "{identity}_{condition}.png",
    "{identity}{condition}{emotion}{any}",
    "{identity}_{emotion}_{condition}_{identity}.png",
    "{identity}{emotion}{condition}" + "{any}" * 9 + "!",
    "{identity}_{emotion}_{condition}" + "_{any}" * 20,
    "({identity}_{emotion}_{condition}.png",
    "{identity}_{emotion}_{condition}_{0}.png",
    "{identity}_{emotion}_{condition}_{é}.png",
    "{identity}/{emotion}/{condition}\\",
    "{identity}_{emotion}_{condition}\0.png",
    "../{identity}_{emotion}_{condition}.png",
    "[{identity}-{emotion}]*+?{condition}",
    "{{identity}}{emotion}{condition}",
    "",
    "{}",
    "{",
)


def make_unlabelled() -> None:
    write_params(ingest={"source": "folder", "folder": "raw"})
    rng = np.random.default_rng(0)
    Path("raw").mkdir()
    for woman in ("anna", "bea"):
        for condition in ("nude", "clothed"):
            picture(rng).save(Path("raw") / f"{woman}_sad_{condition}.png")
    write_arguments("{identity}_{emotion}_{condition}.png", ["nude=semi_nude"])


def write_arguments(pattern: str, aliases: list[str]) -> None:
    options = [part for alias in aliases for part in ("--alias", alias)]
    Path("arguments.json").write_text(json.dumps([f"--scaffold={pattern}", *options]))


def damage_scaffold(rng: Generator) -> Damage:
    pattern, alias = pick(rng, PATTERNS), pick(rng, ("nude=semi_nude", "=", "a=b=c", "none", "", "nude=", "é=\0"))
    if rng.random() < 0.5:
        pattern = spoil_bytes(b"{identity}_{emotion}_{condition}.png", rng)[0].decode("latin-1")
    for _ in range(int(rng.integers(3))):
        name = pick(rng, ("a" * 200, "_" * 200, "x_y_z_" * 30, "é", " ", "\udcff", "a\nb", "-", "{identity}"))
        Path("raw", f"{name}.png").touch()
    write_arguments(pattern, [alias])
    return Damage(f"{pattern!r} {alias!r}", ("pattern", "--alias", "no image in raw", "raw"))


def use_scaffold() -> str:
    with mock.patch.object(sys, "argv", ["ingest", *json.loads(Path("arguments.json").read_text())]):
        ingest.main()
    if not Path("raw/manifest.csv").is_file():  # an empty pattern is none: the planted world is drawn
        return use_dataset()
    table = pd.read_csv("raw/manifest.csv", dtype=str, keep_default_na=False)
    assert len(table) and (table[["image", "identity"]] != "").all(axis=None), table
    return ""


# sparse autoencoders


def random_sae() -> JumpReLUSAE:
    sae = JumpReLUSAE(D_IN, D_SAE)
    generator = torch.Generator().manual_seed(0)
    for parameter in sae.parameters():
        parameter.data = torch.rand(parameter.shape, generator=generator)
    return sae.requires_grad_(False)


def damage_tensors(fpath: Path, rng: Generator) -> str:
    """One tensor of a safetensors file missing, added, of another shape, type or with values that are no numbers."""
    tensors = load_file(fpath)
    name = pick(rng, tensors)
    value = tensors[name].flatten()[: int(rng.integers(1, 9))]
    kind, spoilt = pick(
        rng,
        {
            "missing": {},
            "empty": {name: value[:0]},
            "flat": {name: tensors[name].flatten().contiguous()},
            "shorter": {name: value.clone()},
            "scalar": {name: value[0].clone()},
            "turned": {name: tensors[name].T.contiguous() if tensors[name].ndim == 2 else value.clone()},
            "NaN": {name: torch.full_like(tensors[name], float("nan"))},
            "infinite": {name: torch.full_like(tensors[name], -float("inf"))},
            "too large": {name: tensors[name].double() + 1e300},
            "int64": {name: tensors[name].long()},
            "bool": {name: tensors[name] > 0},
            "complex": {name: tensors[name].to(torch.complex64)},
            "float8": {name: tensors[name].to(torch.float8_e4m3fn)},
            "half": {name: tensors[name].half()},
            "added": {name: tensors[name], "surplus": value.clone()},
        }.items(),
    )
    del tensors[name]
    tensors = {} if rng.random() < 0.05 else tensors | spoilt
    fpath.unlink()
    save_file(tensors, fpath)
    return f"{name} {kind}"


def damage_sae(directory: Path) -> Callable[[Generator], Damage]:
    def damage(rng: Generator) -> Damage:
        config, weights = directory / "cfg.json", directory / "sae_weights.safetensors"
        kind = pick(rng, ("tensors", "tensors", "config", "config", "weights", "config file"))
        what = {
            "tensors": lambda: damage_tensors(weights, rng),
            "weights": lambda: spoil_file(weights, rng),
            "config": lambda: spoil_json(config, rng),
            "config file": lambda: spoil_file(config, rng),
        }[kind]()
        return Damage(what, (str(directory),))

    return damage


PRETRAINED_DPATH = Path("data/pretrained/l2_x2")


def use_sae() -> str:
    sae = train_sae.pretrained(Point(2, D_SAE // D_IN), D_IN)
    assert all(parameter.dtype == torch.float32 for parameter in sae.parameters())
    assert sae(torch.zeros(3, D_IN)).shape == (3, D_IN)
    return digest(*sae.state_dict().values())


# CLIP


@cache
def clip_weights() -> dict[str, torch.Tensor]:
    from open_clip.model import CLIP

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CLIP(**MODEL).state_dict()


CLIP_DPATH = Path("data/clip")


def make_clip() -> None:
    CLIP_DPATH.mkdir(parents=True)
    save_file(clip_weights(), CLIP_DPATH / "open_clip_model.safetensors")
    preprocessing = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    config = {"model_cfg": MODEL, "preprocess_cfg": preprocessing}
    (CLIP_DPATH / "open_clip_config.json").write_text(json.dumps(config))


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


def damage_clip(rng: Generator) -> Damage:
    config, weights = CLIP_DPATH / "open_clip_config.json", CLIP_DPATH / "open_clip_model.safetensors"
    kind = pick(rng, ("tensors", "weights", "config", "config", "config", "config file", "keys", "pickle"))
    if kind == "keys":
        tree = json.loads(config.read_text())
        part, key, value = pick(rng, MODEL_KEYS)
        tree["model_cfg"][part][key] = value
        config.write_text(json.dumps(tree))
        return Damage(f"{part}.{key}: {value}", (str(CLIP_DPATH), "vision tower"))
    if kind == "pickle":
        weights.unlink()
        name = pick(rng, ("open_clip_pytorch_model.bin", "model.pth", "open_clip_model.npz"))
        torch.save(Bomb(), CLIP_DPATH / name)
        return Damage(f"{name} for the weights", (str(CLIP_DPATH),))
    what = {
        "tensors": lambda: damage_tensors(weights, rng),
        "weights": lambda: spoil_file(weights, rng),
        "config": lambda: spoil_json(config, rng),
        "config file": lambda: spoil_file(config, rng),
    }[kind]()
    return Damage(what, (str(CLIP_DPATH), "vision tower"))


def use_clip() -> str:
    clip = vit.load(CLIP_DPATH, COMPUTE)
    images = np.full((2, clip.image_size, clip.image_size, 3), 128, np.uint8)
    embeddings, kept = clip.residuals(clip.pixels(images), [1])
    texts = clip.text(["a calm woman", "x"])
    assert embeddings.shape == texts.shape == (2, embeddings.shape[1]) and kept[1].ndim == 3
    assert len(vit.fingerprint(CLIP_DPATH)) == 64
    return digest(embeddings, kept[1], texts, clip.logit_scale)


def make_checkpoint() -> None:
    import open_clip

    Path("architecture").mkdir()
    Path(f"architecture/{ARCHITECTURE}.json").write_text(json.dumps(MODEL))
    open_clip.add_model_config(f"architecture/{ARCHITECTURE}.json")
    save_file(clip_weights(), "weights.safetensors")
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
    prepare_clip.main()
    return use_clip()


CHECKPOINT_OUTS = ("data/clip", "metrics/prepare_clip.json", "plots/prepare_clip.csv")


# Zarr


def damage_zarr(directory: Path, named: Path | None = None) -> Callable[[Generator], Damage]:
    """Damage to chunks, which must be noticed, or to what describes them."""

    def damage(rng: Generator) -> Damage:
        described = sorted(directory.rglob("zarr.json"))
        chunks = sorted(path for path in directory.rglob("*") if path.is_file() and path not in described)
        kind = pick(rng, ("chunk", "chunk", "chunk", "described", "described file"))
        if kind == "chunk":
            return Damage(spoil_file(pick(rng, chunks), rng), (str(named or directory),), must_show=True)
        spoil = spoil_json if kind == "described" else spoil_file
        return Damage(spoil(pick(rng, described), rng), (str(named or directory),))

    return damage


STORE_DPATH = Path("data/activations/l1.zarr")


def make_store() -> None:
    tokens = np.random.default_rng(0).normal(size=(N_IMAGES, N_TOKENS, D_IN)).astype(np.float32)
    with store.create(STORE_DPATH, *tokens.shape, shard_images=2) as new:
        new.append(tokens)
        new.attributes = {"layer": 1, "model": "m", "module": "b", "dataset_sha256": "d"}


def use_store() -> str:
    opened = store.open(STORE_DPATH)
    tokens = opened.read(slice(None))
    assert tokens.dtype == np.float32 and tokens.shape == opened.shape and tokens.ndim == 3, tokens.dtype
    assert (opened.read(np.array([0])) == tokens[:1]).all() and opened.shard_images >= 1 and opened.provenance
    return digest(tokens)


def make_dataset() -> None:
    rng = np.random.default_rng(0)
    keys = ("image", "identity", "condition", "emotion", "split", "pair")
    rows = [
        (f"{woman}_{condition}", woman, condition, "sad", split, pair)
        for pair, (woman, split) in enumerate((("anna", "discovery"), ("bea", "confirmation")))
        for condition in dataset.CONDITIONS
    ]
    table = pd.DataFrame([*rows, ("other", "", "", "", "corpus", -1)], columns=list(keys))
    images = rng.integers(0, 255, (N_IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    masks = rng.integers(0, 255, (2, N_IMAGES, SIDE, SIDE), dtype=np.uint8)
    prompts = {"sad": "a sad woman", "happy": "a happy woman"}
    with dataset.create(Path("data/dataset"), table, SIDE, prompts) as append:
        append(images, *masks)


def damage_dataset(rng: Generator) -> Damage:
    if rng.random() < 0.4:
        return Damage(spoil_file(Path("data/dataset/manifest.csv"), rng), ("data/dataset",))
    return damage_zarr(Path("data/dataset/images.zarr"), Path("data/dataset"))(rng)


CODES_DPATH = Path("data/selection/codes.zarr")


def random_codes() -> Codes:
    rng = np.random.default_rng(0)
    fields = {name: rng.random((N_IMAGES, D_SAE), dtype=np.float32) for name in FIELDS}
    return Codes(**fields, firing=rng.random(D_SAE))


def use_codes() -> str:
    codes = Codes.load(CODES_DPATH)
    arrays = [getattr(codes, name) for name in (*FIELDS, "firing")]
    assert len({array.shape for array in arrays[:-1]}) == 1 and arrays[-1].shape == arrays[0].shape[1:]
    return digest(*arrays)


SELECTION_DPATH = Path("data/selection")


def make_selection() -> None:
    random_sae().save(SELECTION_DPATH / "sae")
    random_codes().save(CODES_DPATH)
    numbers = pd.DataFrame({"latent": [3, 7], "step": [1, 2], "mean": -0.1, "low": -0.2, "high": -0.05, "p_max_t": 0.0})
    for kind in get_args(params.LatentList):
        numbers[COLUMNS].to_csv(SELECTION_DPATH / f"{kind}.csv", index=False)
    tests = pd.DataFrame({"latent": range(D_SAE), "mean_cls": 0.1, "mean_patch": 0.2, "firing": 0.5, "eff_mean": -0.1})
    tests.to_csv(SELECTION_DPATH / "tests.csv", index=False)
    chosen = {"layer": 1, "expansion": 2, "list": "bias", "latents": [3, 7], "why": "the largest net gain"}
    (SELECTION_DPATH / "selection.json").write_text(json.dumps(chosen))


def damage_selection(rng: Generator) -> Damage:
    tables = [SELECTION_DPATH / name for name in ("bias.csv", "perception.csv", "tests.csv")]
    kind = pick(rng, ("json", "json", "table", "table", "file", "sae"))
    if kind == "json":
        return Damage(spoil_json(SELECTION_DPATH / "selection.json", rng), (str(SELECTION_DPATH),))
    if kind == "sae":
        return damage_sae(SELECTION_DPATH / "sae")(rng)
    fpath = pick(rng, tables)
    if kind == "file":
        return Damage(
            spoil_file(pick(rng, [*tables, SELECTION_DPATH / "selection.json"]), rng), (str(SELECTION_DPATH),)
        )
    table = pd.read_csv(fpath).astype(object)
    column = pick(rng, table.columns)
    table.loc[int(rng.integers(len(table))), column] = what = pick(
        rng, ("", "x", -1, 10**9, 0.5, "nan", "inf", 2**70, 3)
    )
    (table.drop(columns=column) if rng.random() < 0.2 else table).to_csv(fpath, index=False)
    return Damage(f"{fpath}: {column} {what!r}", (str(SELECTION_DPATH),))


def check_selection() -> selection.Selection:
    chosen = selection.load(SELECTION_DPATH)
    assert chosen.layer >= 1 and chosen.expansion >= 1 and chosen.edited_list in get_args(params.LatentList)
    assert np.isin(chosen.latents, np.arange(chosen.sae.d_sae)).all() and isinstance(chosen.why, str)
    assert chosen.means.shape == (2, chosen.sae.d_sae) and np.isfinite(chosen.means).all()
    assert chosen.codes.effect.shape[1] == chosen.sae.d_sae
    for table in chosen.lists.values():
        assert list(table.columns) == COLUMNS and table["latent"].isin(range(chosen.sae.d_sae)).all()
        assert np.isfinite(table.to_numpy(dtype=np.float64)).all()
    return chosen


def use_selection() -> str:
    return digest(check_selection().means)


# what a stage reads besides


def make_export() -> None:
    make_selection()
    make_clip()
    write_params()
    Path("metrics/full").mkdir(parents=True)
    measured = {"edit": {"gain": 0.1}, "guardrails": {"cost": 0.0}, "reliance": {"bust": 0.2}}
    Path("metrics/full/ablate.json").write_text(json.dumps(measured))


def damage_export(rng: Generator) -> Damage:
    kind = pick(rng, ("metrics", "metrics", "metrics file", "selection", "params"))
    fpath = Path("metrics/full/ablate.json")
    if kind == "selection":
        return damage_selection(rng)
    if kind == "params":
        return damage_params(rng)
    return Damage({"metrics": spoil_json, "metrics file": spoil_file}[kind](fpath, rng), (str(fpath),))


def use_export() -> str:
    export_clip.main()
    return ""


def make_resumed() -> None:
    with Checkpoint(Path(".ckpt/train_sae/0")) as kept:
        kept.save(dict(random_sae().state_dict()))


def use_resumed() -> str:
    with Checkpoint(Path(".ckpt/train_sae/0")) as kept:
        state = kept.load()
    assert state is None or isinstance(state, dict)
    return ""


INPUTS: dict[str, Input] = {
    "params.yaml": Input(write_params, damage_params, use_params),
    "a ready study over params.yaml": Input(write_params, damage_params, use_study, ("params.yaml",)),
    "manifest": Input(make_folder, damage_manifest, use_folder, ("data/dataset", "metrics", "plots")),
    "image": Input(make_folder, damage_image, use_folder, ("data/dataset", "metrics", "plots")),
    "mask": Input(
        make_folder, lambda rng: damage_image(rng, mask=True), use_folder, ("data/dataset", "metrics", "plots")
    ),
    "scaffold": Input(
        make_unlabelled, damage_scaffold, use_scaffold, ("raw/manifest.csv",)
    ),
    "SAE": Input(lambda: random_sae().save(PRETRAINED_DPATH), damage_sae(PRETRAINED_DPATH), use_sae),
    "CLIP, prepared": Input(make_clip, damage_clip, use_clip),
    "CLIP, a checkpoint": Input(make_checkpoint, damage_checkpoint, use_checkpoint, CHECKPOINT_OUTS),
    "activations": Input(make_store, damage_zarr(STORE_DPATH), use_store),
    "dataset": Input(make_dataset, damage_dataset, use_dataset),
    "codes": Input(lambda: random_codes().save(CODES_DPATH), damage_zarr(CODES_DPATH), use_codes),
    "selection": Input(make_selection, damage_selection, use_selection),
    "export": Input(make_export, damage_export, use_export, ("data/mitigated",)),
    "a run to resume": Input(
        make_resumed, lambda rng: Damage(spoil_file(Path(".ckpt/train_sae/0/state.safetensors"), rng), ()), use_resumed,
        (".ckpt",),
    ),
}  # fmt: skip

"""The audited CLIP: load it from `data/clip`, read or replace its residual stream, and run the blocks after it.

Layers are counted from 1: layer L is the residual stream *after* `visual.transformer.resblocks[L - 1]`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from stages.core.run import compute, faults, inputs
from stages.core.run.errors import StudyError
from stages.core.run.labels import GREY
from stages.core.schema import Compute

OPTIONAL_PARTS = ("timm", "transformers")  # of open_clip
CONFIG_FNAME, WEIGHTS_FNAME = "open_clip_config.json", "open_clip_model.safetensors"
REMEDY = "rerun `dvc repro --force prepare_clip`"


class ModelError(StudyError):
    """A model or layer cannot be used. The message names the reason."""


class FrozenClip:
    """A frozen open_clip model in evaluation mode, whose vision tower is a plain ViT.

    model: the open_clip model.
    tokenizer: turns a list of texts into token indices.
    mean, std: mean and standard deviation of each colour channel, to normalise pixels in [0, 1].
    precision: torch type of the forward pass, float32 or bfloat16.
    Raises ModelError for another kind of vision tower.
    """

    def __init__(self, model: Any, tokenizer: Callable[..., Tensor], mean: Any, std: Any, precision: str = "float32"):
        self.model = model.eval().requires_grad_(False)
        self.visual: Any = model.visual
        self.tokenizer = tokenizer
        self.device = next(model.parameters()).device
        self.dtype = getattr(torch, precision)
        self._mean = torch.tensor(mean, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(std, device=self.device).view(3, 1, 1)
        check_supported(self.visual)

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks of the vision tower."""
        return len(self.visual.transformer.resblocks)

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches, down and across."""
        return tuple(self.visual.grid_size)

    @property
    def image_size(self) -> int:
        """Side of the square input images, pixels."""
        return int(self.visual.image_size[0])

    @property
    def logit_scale(self) -> float:
        """Factor on cosines before the softmax over prompts."""
        return float(self.model.logit_scale.exp())

    def check_layer(self, layer: int) -> None:
        """Raise ModelError unless the vision tower has the block `layer`, counted from 1."""
        if not 1 <= layer <= self.n_layers:
            raise ModelError(f"grid.layers: the model has blocks 1 to {self.n_layers}; layer {layer} does not exist")

    def pixels(self, images: UInt8[np.ndarray, "n s s 3"]) -> Float[Tensor, "n 3 s s"]:
        """Return RGB images as the normalised float32 input of the vision tower, on the model's device.

        images: square images, 0 to 255.
        Raises ModelError if the images do not have the model's resolution. They are never resized here.
        """
        if images.shape[1] != self.image_size:
            raise ModelError(
                f"images are {images.shape[1]} px, the model takes {self.image_size}: set ingest.image_size"
            )
        scaled = torch.from_numpy(np.ascontiguousarray(images)).to(self.device).permute(0, 3, 1, 2) / 255
        return ((scaled - self._mean) / self._std).to(torch.float32)

    def autocast(self) -> Any:
        """Return a context in which a forward pass runs at the model's precision."""
        return torch.autocast(self.device.type, self.dtype) if self.dtype != torch.float32 else nullcontext()

    def text(self, prompts: list[str]) -> Float[Tensor, "k embed"]:
        """Return the unit-norm float32 embedding of each text in `prompts`, in order, without gradient."""
        with torch.no_grad(), self.autocast():
            return self.model.encode_text(self.tokenizer(prompts).to(self.device), normalize=True).float()

    def embed(self, pixels: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n embed"]:
        """Return the unit-norm float32 embedding of each image. Differentiable.

        pixels: normalised images, as the method `pixels` returns them.
        """
        with self.autocast():
            return nn.functional.normalize(self.visual(pixels).float(), dim=-1)

    def residuals(self, pixels: Float[Tensor, "n 3 s s"], layers: list[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """Run one forward pass without gradient. Returns embeddings, and the residual stream after some layers.

        pixels: normalised images, as the method `pixels` returns them.
        layers: blocks of the vision tower, counted from 1.
        The first result holds the unit-norm embedding of each image, of shape [n, embed].
        The second result holds the tokens after each layer, by layer, of shape [n, token, width], class token first.
        """
        kept: dict[int, Tensor] = {}
        with recorded_residuals(self.visual, layers, kept), torch.no_grad():
            embeddings = self.embed(pixels)
        return embeddings, kept

    def head(self, pixels: Float[Tensor, "n 3 s s"], layer: int) -> Float[Tensor, "n token width"]:
        """Return the residual stream of each image after `layer`, float32. Differentiable.

        pixels: normalised images, as the method `pixels` returns them.
        layer: block of the vision tower, counted from 1. Later blocks do not run: `tail` goes on from here.
        """
        transformer = self.visual.transformer
        with self.autocast():
            x = self.visual._embeds(pixels)
            x = x if transformer.batch_first else x.transpose(0, 1)
            for block in transformer.resblocks[:layer]:
                x = block(x)
            return (x if transformer.batch_first else x.transpose(0, 1)).float()

    def tail(self, tokens: Float[Tensor, "n token width"], layer: int) -> Float[Tensor, "n embed"]:
        """Return the unit-norm embedding of each image, from its residual stream after `layer`. Differentiable.

        tokens: the residual stream after block `layer` (counted from 1), class token first. Only later blocks run, and
            the last block only at the class token, because no other token reaches the embedding.
        """
        transformer = self.visual.transformer
        with self.autocast():
            x = tokens if transformer.batch_first else tokens.transpose(0, 1)
            for block in transformer.resblocks[layer:-1]:
                x = block(x)
            if layer < self.n_layers:
                x = at_class_token(transformer.resblocks[-1], x, transformer.batch_first)
            pooled, _ = self.visual._pool(x if transformer.batch_first else x.transpose(0, 1))
            return nn.functional.normalize((pooled @ self.visual.proj).float(), dim=-1)

    @torch.no_grad()
    def project(self, directions: Float[Tensor, "k width"]) -> Float[Tensor, "k embed"]:
        """Map directions of the residual stream after the last block into the joint space of images and texts.

        The map is the final layer norm (linearised, up to scale), then the output projection.
        directions: vectors of the residual stream, such as decoder rows of an SAE.
        Returns one vector per direction, not normalised.
        """
        centred = directions - directions.mean(dim=-1, keepdim=True)
        return (centred * self.visual.ln_post.weight @ self.visual.proj).float()


def at_class_token(block: Any, x: Tensor, batch_first: bool) -> Tensor:
    """Run a transformer block, but compute only what the block gives for the class token. Differentiable.

    The class token still attends to all tokens. Their own queries and their MLP are left out, which are five sixths of
    the work.

    block: a residual attention block of open_clip. Blocks of another kind run in full.
    x: the tokens that enter the block, class token first: [n, token, width] if `batch_first`, else [token, n, width].
    Returns the class token after the block, in the layout of `x`.
    """
    from open_clip.transformer import ResidualAttentionBlock

    if type(block) is not ResidualAttentionBlock:
        return block(x)
    normed, first = block.ln_1(x), (slice(None), slice(1)) if batch_first else (slice(1),)
    cls = x[first] + block.ls_1(block.attention(q_x=normed[first], k_x=normed, v_x=normed))
    return cls + block.ls_2(block.mlp(block.ln_2(cls)))


def check_supported(visual: Any) -> None:
    """Raise ModelError unless the vision tower is a ViT whose embedding is projected from the class token.

    visual: the vision tower of an open_clip model (`model.visual`).
    """
    if not hasattr(visual, "transformer") or not hasattr(visual.transformer, "resblocks"):
        raise ModelError(
            f"vision tower {type(visual).__name__} has no transformer.resblocks; choose a ViT of open_clip"
        )
    if getattr(visual, "attn_pool", None) is not None or getattr(visual, "pool_type", "tok") != "tok":
        raise ModelError("the vision tower pools by attention or average; only class-token ViTs can be audited")
    if visual.proj is None:
        raise ModelError("the vision tower has no output projection; choose a contrastive ViT of open_clip")


def check_finite(model: nn.Module, source: str, remedy: str) -> None:
    """Raise ModelError if any weight or buffer of the model holds a value that is not finite.

    model: any torch module. source: where the weights come from. remedy: what the user can do.
    The message names the last two.
    """
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{source}: {name} holds values that are not finite; {remedy}")


def check_towers(model_cfg: dict[str, Any], source: str) -> None:
    """Raise ModelError if open_clip's `model_cfg` asks for a tower or a tokenizer of another library.

    Loading such a part would download files, which may contain code.
    model_cfg: open_clip's description of a model, with the sections `vision_cfg` and `text_cfg`.
    source: where `model_cfg` comes from; the message names it.
    """
    for section in (model_cfg["vision_cfg"], model_cfg["text_cfg"], model_cfg):
        for key in section:
            if key.startswith(("hf_", "timm_")) or key == "tokenizer_kwargs":
                raise ModelError(f"{source}: {key} is set; only towers of open_clip's own can be audited")


def import_open_clip() -> Any:
    """Import open_clip without two packages that it can do without, and return it. They take half of its import time.

    timm and transformers hold towers of other libraries, which are refused here (`check_towers`).
    """
    absent = [name for name in OPTIONAL_PARTS if name not in sys.modules]
    for name in absent:
        # None makes an import fail as if the package were not installed; the type of sys.modules knows modules only
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        import open_clip
    finally:
        for name in absent:
            if sys.modules.get(name, name) is None:
                del sys.modules[name]
    return open_clip


def load(directory: Path, config: Compute) -> FrozenClip:
    """Load the model that the stage `prepare_clip` saved in `directory`, and run it once as a check.

    config: section `compute` of params.yaml: device, number of threads and precision. All three are set up here.
    Raises ModelError if the configuration or the weights are missing or damaged, or do not belong together.
    Raises DeviceError if the device does not exist.
    """
    open_clip, where = import_open_clip(), compute.set_up_device(config)
    inputs.remember_file(directory / WEIGHTS_FNAME)
    try:
        _check_config(directory)
        model = open_clip.create_model(f"local-dir:{directory}", device=where)
        check_finite(model, str(directory / WEIGHTS_FNAME), REMEDY)
        normalised = model.visual.preprocess_cfg
        tokenizer = open_clip.get_tokenizer(f"local-dir:{directory}")
        clip = FrozenClip(model, tokenizer, normalised["mean"], normalised["std"], config.precision)
        _check_runs(clip)
    except StudyError:
        raise
    except Exception as error:  # a value that open_clip does not expect fails where it is first used, with any error
        if faults.of_machine(error):
            raise
        raise ModelError(
            f"{directory} holds no model that can be loaded ({type(error).__name__}: {error}); {REMEDY}"
        ) from None
    return clip


def _check_config(directory: Path) -> None:
    """Refuse a saved model that open_clip should not try to load.

    Raises ValueError if the weights are missing (open_clip would read a pickle instead, or draw random weights), or if
    a size in the configuration exceeds the bytes of the weights. Raises ModelError for towers of other libraries.
    """
    if not (directory / WEIGHTS_FNAME).is_file():
        raise ValueError(f"{WEIGHTS_FNAME} is missing")
    (directory / WEIGHTS_FNAME).open("rb").close()  # safetensors does not find a file that it may not read
    n_bytes = (directory / WEIGHTS_FNAME).stat().st_size
    model_cfg = json.loads((directory / CONFIG_FNAME).read_text("utf-8"))["model_cfg"]
    check_towers(model_cfg, str(directory / CONFIG_FNAME))
    for section in (model_cfg["vision_cfg"], model_cfg["text_cfg"], model_cfg):
        for key, value in section.items():
            if isinstance(value, int) and value > n_bytes:
                raise ValueError(f"{key} is {value}, but the weights have {n_bytes} bytes")


@torch.no_grad()
def _check_runs(clip: FrozenClip) -> None:
    """Raise ValueError unless an image and a text give finite embeddings of the same shape."""
    grey = np.full((1, clip.image_size, clip.image_size, 3), GREY, np.uint8)
    image, text = clip.embed(clip.pixels(grey)), clip.text(["a picture"])
    if image.shape != text.shape or not torch.isfinite(torch.cat([image, text])).all():
        raise ValueError(f"embeddings {list(image.shape)} of images and {list(text.shape)} of texts, or not finite")


@contextmanager
def recorded_residuals(visual: Any, layers: list[int], into: dict[int, Tensor]) -> Iterator[None]:
    """Open a context in which each forward pass stores the residual stream after some layers in `into`.

    visual: the vision tower. layers: blocks of the vision tower, counted from 1.
    into: dictionary to fill: tokens of shape [n, token, width], by layer. A later pass overwrites the tokens.
    """
    batch_first = visual.transformer.batch_first

    def keep(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            into[layer] = output if batch_first else output.transpose(0, 1)

        return hook

    with ExitStack() as stack:  # a handle of a hook is a context: leaving it removes the hook
        for layer in layers:
            stack.enter_context(visual.transformer.resblocks[layer - 1].register_forward_hook(keep(layer)))
        yield


@contextmanager
def replaced_residual(visual: Any, layer: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Open a context in which each forward pass goes on with a changed residual stream after `layer`.

    visual: the vision tower. layer: block of the vision tower, counted from 1.
    change: function that takes the tokens after `layer`, of shape [n, token, width], and returns the changed tokens.
    """
    batch_first = visual.transformer.batch_first

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return change(output) if batch_first else change(output.transpose(0, 1)).transpose(0, 1)

    with visual.transformer.resblocks[layer - 1].register_forward_hook(hook):
        yield


def fingerprint(directory: Path) -> str:
    """Return the SHA-256 of a saved model (configuration and weights), in hexadecimal.

    directory: folder with `open_clip_config.json` and `open_clip_model.safetensors`.
    """
    digest = hashlib.sha256()
    for name in (CONFIG_FNAME, WEIGHTS_FNAME):
        with (directory / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()

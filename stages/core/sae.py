"""The JumpReLU sparse autoencoder, with SAELens' file format.

    z = (x - b_dec) W_enc + b_enc        pre-activations  [.., d_sae]
    f = z * H(z - threshold)             latents          [.., d_sae]
    x_hat = f W_dec + b_dec              reconstruction   [.., d_in]

The step H gives the threshold no gradient. In training the threshold therefore learns through a kernel K, the
rectangle on (-1/2, 1/2), as in Rajamanoharan et al. 2024 (arXiv 2407.14435, eq. 11 and 12):
    df/dthreshold = -(threshold / bandwidth) K((z - threshold) / bandwidth)
    dH/dthreshold = -(1 / bandwidth) K((z - threshold) / bandwidth)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

from stages.core.run import faults, inputs, tensors
from stages.core.run.errors import StudyError

CONFIG_FNAME = "cfg.json"
WEIGHTS_FNAME = "sae_weights.safetensors"
PARAMETERS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")


class SAEError(StudyError):
    """An SAE on disk cannot be used. The message names the file, the tensor or key, and the reason."""


class JumpReLUSAE(nn.Module):
    """A JumpReLU sparse autoencoder: activation f = z where z exceeds the threshold, else 0.

    z = (x - b_dec) W_enc + b_enc are the pre-activations of tokens x. f W_dec + b_dec is the reconstruction of x.
    All parameters are float32 and act on raw activations. All are zero until they are set or loaded.
    d_in: width of a token. d_sae: number of latents. metadata: JSON values by name, kept in `cfg.json`.
    """

    def __init__(self, d_in: int, d_sae: int, metadata: dict[str, Any] | None = None):
        super().__init__()
        self.W_enc = nn.Parameter(torch.zeros(d_in, d_sae))
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(torch.zeros(d_sae, d_in))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.threshold = nn.Parameter(torch.zeros(d_sae))
        self.metadata = dict(metadata or {})

    @property
    def d_in(self) -> int:
        """Width of a token."""
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_enc.shape[1]

    def pre_activations(self, x: Float[Tensor, "*n d_in"], latents: Tensor | None = None) -> Float[Tensor, "*n k"]:
        """Return the pre-activations z = (x - b_dec) W_enc + b_enc of tokens x. Differentiable in x.

        x: raw tokens of the residual stream, any number of axes before the last.
        latents: indices of the latents to compute, in the order wanted; all d_sae latents if not given.
        """
        W, b = (self.W_enc, self.b_enc) if latents is None else (self.W_enc[:, latents], self.b_enc[latents])
        return (x - self.b_dec) @ W + b

    def encode(self, x: Float[Tensor, "*n d_in"], latents: Tensor | None = None) -> Float[Tensor, "*n k"]:
        """Return the activations f of the latents on tokens x. Differentiable in x.

        f is the pre-activation z = (x - b_dec) W_enc + b_enc where z exceeds the threshold, and 0 elsewhere.
        x: raw tokens of the residual stream, any number of axes before the last.
        latents: indices of the latents to compute, in the order wanted; all d_sae latents if not given.
        """
        z = self.pre_activations(x, latents)
        threshold = self.threshold if latents is None else self.threshold[latents]
        return z * (z > threshold)

    def decode(self, f: Float[Tensor, "*n d_sae"]) -> Float[Tensor, "*n d_in"]:
        """Return x_hat = f W_dec + b_dec, the reconstruction of tokens. f: activations of all latents on the tokens."""
        return f @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*n d_in"]) -> Float[Tensor, "*n d_in"]:
        """Return x_hat, the reconstruction of raw tokens x: the tokens encoded into latents, then decoded."""
        return self.decode(self.encode(x))

    def save(self, directory: Path | str) -> None:
        """Write `cfg.json` and `sae_weights.safetensors` into `directory`, in SAELens' format. Creates the folder."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        weights = {name: getattr(self, name).detach().contiguous().cpu() for name in PARAMETERS}
        tensors.write(directory / WEIGHTS_FNAME, weights)
        config = {
            "architecture": "jumprelu",
            "d_in": self.d_in,
            "d_sae": self.d_sae,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": self.metadata,
        }
        (directory / CONFIG_FNAME).write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path | str) -> JumpReLUSAE:
        """Read an SAE in SAELens' format from `directory`. Returns the SAE with frozen parameters.

        The architecture is JumpReLU, or ReLU (`standard`), which is read as JumpReLU with thresholds of zero.
        An SAE that encodes x without subtracting b_dec is converted. b_enc is changed so that activations stay equal.
        Raises SAEError if a file is missing or damaged, or if the architecture is another one. Raises SAEError also if
        a tensor is missing, has a wrong shape, or holds a value that is not finite.
        """
        directory = Path(directory)
        config = _read_config(directory / CONFIG_FNAME)
        given = _read_tensors(directory / WEIGHTS_FNAME)
        d_in, d_sae = config["d_in"], config["d_sae"]
        if config["architecture"] == "standard" and "b_enc" in given:
            given.setdefault("threshold", torch.zeros_like(given["b_enc"]))
        _check_tensors(given, d_in, d_sae, directory / WEIGHTS_FNAME)
        sae = cls(d_in, d_sae, config.get("metadata"))
        for name in PARAMETERS:
            getattr(sae, name).data.copy_(given[name])
        if not config.get("apply_b_dec_to_input", True):  # such an SAE encodes x, ours x - b_dec
            sae.b_enc.data += sae.b_dec.data @ sae.W_enc.data
        return sae.requires_grad_(False)


def _read_config(fpath: Path) -> dict[str, Any]:
    try:
        config = json.loads(fpath.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if faults.of_machine(error):
            raise
        raise SAEError(f"{fpath} is missing or not JSON ({error})") from None
    if not isinstance(config, dict):
        raise SAEError(f"{fpath}: expected keys and values, found {type(config).__name__}")
    missing = [key for key in ("architecture", "d_in", "d_sae") if key not in config]
    if missing:
        raise SAEError(f"{fpath}: key {missing[0]!r} is missing")
    for key in ("d_in", "d_sae"):
        if type(config[key]) is not int or config[key] < 0:
            raise SAEError(f"{fpath}: {key} is {config[key]!r}, expected a whole number from 0")
    if not isinstance(config.get("metadata"), dict | None):
        raise SAEError(f"{fpath}: metadata is {config['metadata']!r}, expected keys and values")
    if not isinstance(config.get("apply_b_dec_to_input", True), bool):
        raise SAEError(f"{fpath}: apply_b_dec_to_input is {config['apply_b_dec_to_input']!r}, expected true or false")
    if config["architecture"] not in ("jumprelu", "standard"):
        raise SAEError(f"{fpath}: architecture {config['architecture']!r}; only jumprelu and standard can be read")
    if config.get("normalize_activations", "none") not in ("none", None):
        raise SAEError(f"{fpath}: normalize_activations must be none; fold the scaling into the weights and save again")
    return config


def _read_tensors(fpath: Path) -> dict[str, Tensor]:
    inputs.remember_file(fpath)
    try:
        given, _ = tensors.read(fpath)
    except (SafetensorError, OSError) as error:
        if faults.of_machine(error):
            raise
        raise SAEError(f"{fpath} is missing, cut short or not a safetensors file ({error})") from None
    for name in given.keys() & set(PARAMETERS):
        if not given[name].is_floating_point():
            raise SAEError(f"{fpath}: {name} holds {given[name].dtype}, expected floating-point numbers")
    return {name: tensor.float() for name, tensor in given.items() if name in PARAMETERS}


def _check_tensors(found: dict[str, Tensor], d_in: int, d_sae: int, fpath: Path) -> None:
    shapes = ([d_in, d_sae], [d_sae], [d_sae, d_in], [d_in], [d_sae])
    for name, wanted in zip(PARAMETERS, shapes, strict=True):
        given = found.get(name)
        if given is None or list(given.shape) != wanted:
            what = "missing" if given is None else f"of shape {list(given.shape)}"
            raise SAEError(f"{fpath}: {name} is {what}, expected {wanted}")
        if not torch.isfinite(given).all():
            raise SAEError(f"{fpath}: {name} holds values that are not finite")

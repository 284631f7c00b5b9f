"""Latents pooled over the tokens of each image: what each latent did there, and its effect on the emotion readout.

Poolings, never mixed: `cls` (class token), `mean` and `max` (over patches). Effects: `latents/effects.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from zarr.codecs import Crc32cCodec, ZstdCodec

from stages.core.run import arrays
from stages.core.run.arrays import ForeignArrayError
from stages.core.run.errors import StudyError

POOLINGS = ("cls", "mean", "max")
FIELDS = (*POOLINGS, "effect")
REMEDY = "rerun `dvc repro --force analyse_sae select_sae`"


class PooledLatentsError(StudyError):
    """Pooled latents on disk cannot be used. The message names their path and the remedy."""


@dataclass(frozen=True)
class PooledLatents:
    """What each latent did on each image: its activation pooled over tokens in three ways, and its effect on R.

    R is the log-probability of the true emotion, nats.
    All arrays are float32. Images are in the order in which a `Pooling` received them.
    """

    cls: Float[np.ndarray, "n latent"]
    """Activation on the class token."""
    mean: Float[np.ndarray, "n latent"]
    """Mean activation over patches."""
    max: Float[np.ndarray, "n latent"]
    """Largest activation of a patch."""
    effect: Float[np.ndarray, "n latent"]
    """First-order effect on R, summed over tokens, nats (`latents/effects.py`)."""
    firing: Float[np.ndarray, " latent"]
    """Share of the tokens on which the latent is active, over the images that a `Pooling` was told to count."""

    def of_images(self, images: Bool[np.ndarray, " n"]) -> PooledLatents:
        """Keep some of the images.

        images: True for each image to keep.
        Returns a copy with only these images. `firing` is unchanged: it still counts the tokens of all images.
        """
        return replace(self, **{name: getattr(self, name)[images] for name in FIELDS})

    def save(self, directory: Path) -> None:
        """Write all arrays to `directory` as a Zarr group, one array per field, each chunk with a checksum."""
        group = arrays.create_group(directory, overwrite=True)
        for name in (*FIELDS, "firing"):
            values = np.ascontiguousarray(getattr(self, name))
            group.create_array(
                name, data=values, chunks="auto", compressors=[ZstdCodec(), Crc32cCodec()], fill_value=float("nan")
            )

    @classmethod
    def load(cls, directory: Path) -> PooledLatents:
        """Read pooled latents from the Zarr group that `save` wrote into `directory`.

        Raises PooledLatentsError if a chunk is missing or damaged, or if an array has a wrong shape or a value that is
        not finite.
        """
        try:
            group = arrays.open_group(directory, (*FIELDS, "firing"))
            found = {name: np.asarray(group[name][:]) for name in (*FIELDS, "firing")}
            _check(found)
        except MemoryError:
            raise
        except ForeignArrayError as error:
            raise PooledLatentsError(f"{error}; {REMEDY}") from None
        except Exception as error:  # Zarr's own, its codecs', and those of the JSON that describes the arrays
            raise PooledLatentsError(f"{directory} is damaged or missing ({error}); {REMEDY}") from None
        return cls(**found)


def _check(found: dict[str, np.ndarray]) -> None:
    shape = found["effect"].shape
    for name, values in found.items():
        wanted = shape[1:] if name == "firing" else shape
        if values.shape != wanted or len(shape) != 2 or values.dtype.kind != "f":
            raise ValueError(f"{name} is {values.dtype} of shape {values.shape}, expected numbers of shape {wanted}")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} lacks a chunk, or holds values that are not finite")


class Pooling:
    """Pools the latents of images, batch by batch, over the tokens of each image.

    n_images, d_sae: number of images in all batches together, and number of latents.
    counted: True for each image whose tokens count in `firing`, in the order of the batches.
    """

    def __init__(self, n_images: int, d_sae: int, counted: Bool[np.ndarray, " n"]):
        self._found = {name: np.full((n_images, d_sae), np.nan, np.float32) for name in FIELDS}
        self._fired, self._n_tokens = np.zeros(d_sae), 0
        self._counted, self._done = counted, 0

    def add(self, f: Float[Tensor, "n token latent"], effect: Float[Tensor, "n latent"]) -> None:
        """Pool the latents of the next images.

        f: activations of all latents, class token first. effect: effect of each latent on R, nats.
        """
        some = slice(self._done, self._done + len(f))
        pooled = {"cls": f[:, 0], "mean": f[:, 1:].mean(1), "max": f[:, 1:].amax(1), "effect": effect}
        for name, values in pooled.items():
            self._found[name][some] = values.cpu().numpy()
        counted = torch.from_numpy(self._counted[some]).to(f.device)
        self._fired += (f[counted] > 0).sum((0, 1)).cpu().numpy()
        self._n_tokens += int(counted.sum()) * f.shape[1]
        self._done += len(f)

    def result(self) -> PooledLatents:
        """Return the pooled latents of all images that were added."""
        return PooledLatents(**self._found, firing=self._fired / max(self._n_tokens, 1))

"""What one SAE is trained on, as params.yaml says: its tokens, their normalisation, settings and checkpoint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.core.data.dataset import Dataset
from stages.core.run.compute import Ranks, matmul_dtype
from stages.core.schema import Compute, TrainSae
from stages.core.store import Store
from stages.core.training.batches import InMemory, Streamed
from stages.core.training.checkpoint import Checkpoint
from stages.core.training.normalisation import Normalisation
from stages.core.training.settings import TrainConfig

BYTES = 4  # size of a float32
TRAINING_MODULES = ("trainer", "sparsity", "settings", "normalisation", "gradients", "batches")
"""Modules of this package whose code decides the weights."""
SPLITS_TRAINED_ON = {
    "discovery_and_corpus": ("discovery", "corpus"),
    "discovery": ("discovery",),
    "audit": ("discovery", "confirmation"),
}
"""The splits of images that each value of `train_sae.train_on` names."""


@dataclass(frozen=True)
class TrainingInputs:
    """What an SAE of one layer is trained on.

    activations: store with the tokens of the layer.
    config: section `train_sae` of params.yaml.
    rows: the images to train on: their row numbers in the store, ascending.
    tokens: source of batches of the tokens of these images.
    normalisation: mean and scale of these tokens.
    """

    activations: Store
    config: TrainSae
    rows: np.ndarray
    tokens: InMemory | Streamed
    normalisation: Normalisation

    @classmethod
    def from_store(
        cls, activations: Store, data: Dataset, config: TrainSae, device: torch.device, ranks: Ranks
    ) -> TrainingInputs:
        """Return the images to train on, with a source of their tokens and the mean and scale of these tokens.

        activations: store with the tokens of the layer. data: the data set, which gives the split of each image.
        config: section `train_sae` of params.yaml. `train_on` names the images. device: where the tokens are put.
        ranks: number of this process, and number of processes that share every batch.
        Raises BufferTooSmall if `config.memory_gib` holds too few tokens for the batches. Raises TrainingError if the
        tokens have no variance or are not finite. Raises StoreError if the store lacks a value that is needed.
        """
        rows = data.rows(*SPLITS_TRAINED_ON[config.train_on])
        tokens = token_source(activations, rows, config, device, ranks)
        return cls(activations, config, rows, tokens, training_normalisation(tokens, activations, config, device))

    def checkpoint(self, stage: str, compute: Compute, **inputs: Any) -> Checkpoint:
        """Return the checkpoint (saved state) of a training. A training with other inputs has another checkpoint.

        stage: name of the pipeline stage. compute: section `compute` of params.yaml.
        inputs: what else the weights depend on, such as the number of latents, as JSON values by name.
        The folder is named by a hash of `compute`, `config`, the store's attributes and `inputs`. The hash also covers
        the training code, torch's version, the kind of device and the precision of matrix products.
        """
        device = self.normalisation.mean.device
        code = b"".join(Path(__file__).with_name(f"{module}.py").read_bytes() for module in TRAINING_MODULES)
        return Checkpoint.for_inputs(
            stage,
            train_sae=self.config.model_dump(),
            compute=compute.model_dump(),
            activations=self.activations.attributes,
            code=hashlib.sha256(code).hexdigest(),
            torch=torch.__version__,
            processor=[device.type, str(matmul_dtype(self.config.precision, device))],
            **inputs,
        )


def token_source(
    activations: Store, rows: np.ndarray, config: TrainSae, device: torch.device, ranks: Ranks
) -> InMemory | Streamed:
    """Return a source that yields batches of the tokens to train on, in an order that `config.seed` decides.

    Tokens that fit into `config.memory_gib` are read into memory. Otherwise they are streamed from the store.
    activations: store with the tokens of one layer.
    rows: the images to train on: their row numbers in the store, ascending.
    config: section `train_sae` of params.yaml. device: where the tokens are put.
    ranks: number of this process, and number of processes that share every batch.
    Raises BufferTooSmall if the memory holds too few tokens for the batches.
    """
    _, n_tokens, width = activations.shape
    capacity = int(config.memory_gib * 2**30) // (BYTES * width)
    if len(rows) * n_tokens > capacity:
        return Streamed(activations, rows, config.batch_size, config.seed, capacity, device, ranks)
    tokens = torch.from_numpy(activations.read(rows)).flatten(0, 1).to(device)
    return InMemory(tokens, config.batch_size, config.seed, ranks)


def training_normalisation(
    tokens: InMemory | Streamed, activations: Store, config: TrainSae, device: torch.device
) -> Normalisation:
    """Return the mean and scale of the tokens that the SAE is trained on.

    tokens: the tokens to train on. activations: the store of these tokens. config: section `train_sae` of params.yaml.
    device: where a stored mean is put.
    If `config.train_on` is `discovery_and_corpus`, mean and scale come from values in the store. The store has them for
    exactly these images: all but those of the women held out for the claims. Otherwise they are measured on `tokens`.
    Raises TrainingError if the tokens have no variance or are not finite.
    Raises StoreError if the stored values are needed and one is missing.
    """
    if config.train_on != "discovery_and_corpus":
        return Normalisation.from_tokens(tokens.chunks())
    mean, mean_squared_norm = activations.moments
    return Normalisation.from_moments(torch.from_numpy(mean).to(device), mean_squared_norm)


def train_config(config: TrainSae, d_sae: int, seed: int) -> TrainConfig:
    """Return the settings of one training.

    config: section `train_sae` of params.yaml. d_sae: number of latents. seed: used instead of the seed in `config`.
    All other settings come from `config`.
    """
    settings = config.model_dump(exclude={"source", "train_on", "memory_gib", "seed"})
    return TrainConfig(d_sae=d_sae, seed=seed, **settings)

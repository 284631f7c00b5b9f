"""What one SAE is trained on, as params.yaml says: its tokens, their normalisation, settings and checkpoint."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.core.run.compute import Ranks, matmul_dtype
from stages.core.schema import Compute, TrainSae
from stages.core.store import Store
from stages.core.training import batches, gradients, trainer
from stages.core.training.batches import InMemory, Streamed
from stages.core.training.checkpoint import Checkpoint
from stages.core.training.trainer import Normalisation, TrainConfig

BYTES = 4  # size of a float32
SPLITS_TRAINED_ON = {
    "discovery_and_corpus": ("discovery", "corpus"),
    "discovery": ("discovery",),
    "audit": ("discovery", "confirmation"),
}
"""The splits of images that each value of `train_sae.train_on` names."""


def token_source(
    activations: Store, rows: np.ndarray, config: TrainSae, device: torch.device, ranks: Ranks
) -> InMemory | Streamed:
    """Prepare the tokens to train on: on the device if they fit into `config.memory_gib`, else streamed from the store.

    activations: the store of the layer. rows: row numbers of the images to train on.
    config: section `train_sae` of params.yaml. ranks: processes that share every batch.
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

    tokens: the tokens trained on. activations: the store they come from. config: section `train_sae` of params.yaml.
    The store holds mean and variance over all images except those of confirmation women (held out for the claims). They
    are used if the SAE is trained on these images. Otherwise both are measured on `tokens`.
    Raises TrainingError if the tokens have no variance or are not finite, StoreError if the store lacks one of the two.
    """
    if config.train_on != "discovery_and_corpus":
        return Normalisation.from_tokens(tokens.chunks())
    mean, mean_squared_norm = activations.moments
    return Normalisation.from_moments(torch.from_numpy(mean).to(device), mean_squared_norm)


def train_config(config: TrainSae, d_sae: int, seed: int) -> TrainConfig:
    """Return the settings of one training.

    config: section `train_sae` of params.yaml. d_sae: number of latents. seed: used in place of the seed in `config`.
    """
    settings = config.model_dump(exclude={"source", "train_on", "memory_gib", "seed"})
    return TrainConfig(d_sae=d_sae, seed=seed, **settings)


def training_checkpoint(
    stage: str, compute: Compute, config: TrainSae, activations: Store, device: torch.device, **inputs: Any
) -> Checkpoint:
    """Return the checkpoint of a training, named by all that the weights depend on.

    stage: name of the pipeline stage. compute, config: sections `compute` and `train_sae` of params.yaml.
    activations: the store of the layer. inputs: what else the weights depend on, as JSON values.
    The name is a hash of these, of the code, of torch's version and of the kind of processor. A training with other
    inputs has another checkpoint.
    """
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (trainer, gradients, batches))
    return Checkpoint.for_inputs(
        stage,
        train_sae=config.model_dump(),
        compute=compute.model_dump(),
        activations=activations.attributes,
        code=hashlib.sha256(code).hexdigest(),
        torch=torch.__version__,
        processor=[device.type, str(matmul_dtype(config.precision, device))],
        **inputs,
    )

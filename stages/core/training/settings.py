"""Settings of the training of one SAE, and the error for settings or activations that no SAE can be trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.core.run.errors import StudyError
from stages.core.schema import Precision


class TrainingError(StudyError):
    """Activations or settings that no SAE can be trained on."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one training of an SAE.

    d_sae: number of latents. The other fields are keys of the section `train_sae` of params.yaml. The class `TrainSae`
    in `stages/core/schema.py` explains these keys.
    """

    d_sae: int
    recipe: Literal["target_l0", "published"] = "target_l0"
    steps: int = 300
    batch_size: int = 1024
    learning_rate: float = 1e-2
    target_l0: float = 24.0
    sparsity_coefficient: float = 1.0
    bandwidth: float = 1.0
    warmup_share: float = 0.2
    aux_coefficient: float = 0.1
    dead_after_steps: int = 10
    log_every: int = 10
    precision: Precision = "auto"
    seed: int = 0

"""Training of one JumpReLU SAE: `train(tokens, config) -> (sae, history)`."""

from stages.core.training.normalisation import Normalisation
from stages.core.training.settings import TrainConfig, TrainingError
from stages.core.training.trainer import train

__all__ = ["Normalisation", "TrainConfig", "TrainingError", "train"]

"""Training of one JumpReLU SAE: `train(tokens, config) -> (sae, history)`."""

from stages.core.training.trainer import Normalisation, TrainConfig, TrainingError, train

__all__ = ["Normalisation", "TrainConfig", "TrainingError", "train"]

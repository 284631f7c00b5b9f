"""One interface over three JumpReLU trainers: ours, SAELens', dictionary-learning's.

`step(x)` is one full training step on raw activations, along the peer's own code path: what its training loop does
to a batch, without progress bar, logging and checkpoints. Scales of the data are measured on `tokens` when a trainer
is made, by the peer's own rule, and taken back out of what `decoder` and `encode` return.

Settings that the peers document:
SAELens 6 (docs/training_saes.md, "Training JumpReLU SAEs"): `saelens_tanh` is the example it recommends, Anthropic's;
`saelens_quadratic` the one with a target L0, Gemma Scope 2's. The learning rate is `SAETrainerConfig`'s.
dictionary-learning: the defaults of `JumpReluTrainer`, and `normalize_activations`, which its README calls very
helpful.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Protocol

import torch
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from jaxtyping import Float
from sae_lens import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from stages.core.training import Normalisation, TrainConfig
from stages.core.training.trainer import Trainer

PUBLISHED = {  # stages/studies/paper.yaml
    "recipe": "published",
    "learning_rate": 3e-4,
    "sparsity_coefficient": 1e-3,
    "bandwidth": 0.02,
}


def saelens_tanh(steps: int) -> dict[str, Any]:
    """SAELens' documented example of the tanh loss, for a run of so many steps."""
    return {
        "l0_coefficient": 5.0,
        "jumprelu_sparsity_loss_mode": "tanh",
        "jumprelu_tanh_scale": 4.0,
        "jumprelu_bandwidth": 2.0,
        "jumprelu_init_threshold": 0.1,
        "pre_act_loss_coefficient": 3e-6,
        "normalize_activations": "expected_average_only_in",
        "l0_warm_up_steps": steps,
        "lr_decay_steps": steps // 5,
    }


def saelens_quadratic(target_l0: float) -> dict[str, Any]:
    """SAELens' documented example of the quadratic loss."""
    return {
        "jumprelu_sparsity_loss_mode": "quadratic",
        "target_l0": target_l0,
        "l0_coefficient": 5.0,
        "jumprelu_bandwidth": 0.01,
        "jumprelu_init_threshold": 0.01,
        "normalize_activations": "expected_average_only_in",
    }


class Contender(Protocol):
    """A training run under way."""

    name: str
    version: str

    def step(self, x: Float[Tensor, "batch d_in"]) -> object: ...

    def decoder(self) -> Float[Tensor, "d_sae d_in"]: ...

    def encode(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_sae"]: ...


class Ours:
    name, version = "ours", "this checkout"

    def __init__(self, tokens: Float[Tensor, "n d_in"], **config: Any):
        settings, measured = TrainConfig(**config), Normalisation.from_tokens(tokens)
        raw = Normalisation(torch.zeros_like(measured.mean), 1.0)
        self.trainer = Trainer(settings, raw if settings.recipe == "published" else measured, measured)
        self.step = self.trainer.step

    def decoder(self) -> Float[Tensor, "d_sae d_in"]:
        return self.trainer.finished().W_dec

    def encode(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_sae"]:
        return self.trainer.finished().encode(x)


class SaeLens:
    """The body of `SAETrainer.fit`'s loop around a `JumpReLUTrainingSAE`."""

    name, version = "SAELens", version("sae-lens")

    def __init__(
        self,
        tokens: Float[Tensor, "n d_in"],
        *,
        d_sae: int,
        steps: int,
        batch_size: int,
        seed: int = 0,
        lr: float = SAETrainerConfig.lr,
        lr_decay_steps: int = 0,
        **sae: Any,
    ):
        torch.manual_seed(seed)
        settings = JumpReLUTrainingSAEConfig(d_in=tokens.shape[1], d_sae=d_sae, **sae)
        plan = SAETrainerConfig(
            total_training_samples=steps * batch_size,
            train_batch_size_samples=batch_size,
            lr=lr,
            lr_end=lr,
            lr_decay_steps=lr_decay_steps,
        )
        batches = tokens.split(batch_size)
        self.trainer: SAETrainer[Any, Any] = SAETrainer(plan, JumpReLUTrainingSAE(settings), iter(batches))
        self.scaler = self.trainer.activation_scaler
        if settings.normalize_activations == "expected_average_only_in":
            self.scaler.estimate_scaling_factor(settings.d_in, iter(batches), len(batches))

    def step(self, x: Float[Tensor, "batch d_in"]) -> None:
        self.trainer.maybe_reset_sparsity()
        self.trainer.step(x)
        self.trainer.n_training_steps += 1

    @torch.no_grad()
    def decoder(self) -> Float[Tensor, "d_sae d_in"]:
        return self.scaler.unscale(self.trainer.sae.W_dec)

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_sae"]:
        return self.trainer.sae.encode(self.scaler.scale(x))


class DictionaryLearning:
    """The body of `trainSAE`'s loop around a `JumpReluTrainer`, its `normalize_activations` on."""

    name, version = "dictionary-learning", version("dictionary-learning")

    def __init__(
        self,
        tokens: Float[Tensor, "n d_in"],
        *,
        d_sae: int,
        steps: int,
        batch_size: int,
        seed: int = 0,
        **trainer: Any,
    ):
        torch.manual_seed(seed)  # its own `seed` is written down, but sets nothing
        self.trainer = JumpReluTrainer(
            steps=steps, activation_dim=tokens.shape[1], dict_size=d_sae, layer=0, lm_name="none", seed=seed, **trainer
        )
        self.norm = float(tokens[: 100 * batch_size].square().sum(1).mean().sqrt())  # of a hundred batches
        self.n_steps = 0

    def step(self, x: Float[Tensor, "batch d_in"]) -> None:
        self.trainer.update(self.n_steps, x / self.norm)
        self.n_steps += 1

    @torch.no_grad()
    def decoder(self) -> Float[Tensor, "d_sae d_in"]:
        return self.trainer.ae.W_dec * self.norm

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_sae"]:
        return self.trainer.ae.encode(x / self.norm)

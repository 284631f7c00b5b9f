"""Training of one JumpReLU SAE: `train(tokens, config) -> (sae, history)`.

Two recipes share one step, written out by hand (five matrix products, the input needs no gradient):

`published`   loss = mean squared error + coefficient * share of latents active, on raw activations, as
              the published tables imply ((total - recon) / L0 = 1e-3 in every row).
`target_l0`   loss = mean squared error + coefficient * ((L0 - target) / target)^2, the second term warmed
              up, on activations centred on their mean and scaled to E|x|^2 = d_in. Decoder rows have unit
              norm (the gradient along them is projected out), W_enc starts as W_dec^T, thresholds start
              where L0 meets its target, and latents that stopped firing learn to
              reconstruct the residual (AuxK, Gao et al. 2024, arXiv 2406.04093). The scaling is folded
              into what is returned: the SAE works on raw activations.

The pseudo-gradients of the threshold are those of `stages/core/sae.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
import pandas as pd
import psutil
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from stages.core.checkpoint import Checkpoint
from stages.core.sae import PARAMETERS, JumpReLUSAE

WARMUP_STEPS_SHARE, DECAY_STEPS_SHARE = 0.05, 0.3  # of the learning rate: linear up, constant, linear down
ADAM_BETAS = (0.9, 0.999)
MIN_THRESHOLD = 1e-4  # thresholds stay positive
AUX_LATENTS = 64  # dead latents that take part in the reconstruction of one token's residual
JUST_BELOW = 0.999  # of a token's pre-activation: a threshold it passes
REVIVAL_EVERY = 10  # steps between looks at which latents are dead


class TrainingError(SystemExit):
    """Activations or settings that no SAE can be trained on."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What `train` needs to know. Fields and defaults as in params.yaml, section `train_sae`."""

    d_sae: int
    recipe: Literal["target_l0", "published"] = "target_l0"
    steps: int = 300
    batch_size: int = 1024
    learning_rate: float = 3e-3
    target_l0: float = 24.0
    sparsity_coefficient: float = 1.0
    bandwidth: float = 1.0
    warmup_share: float = 0.2
    aux_coefficient: float = 0.1
    dead_after_steps: int = 10
    log_every: int = 10
    seed: int = 0


@dataclass(frozen=True)
class Normalisation:
    """x_normalised = (x - mean) * scale, with E|x_normalised|^2 = d_in."""

    mean: Float[Tensor, " d_in"]
    scale: float

    @classmethod
    def of(cls, tokens: Float[Tensor, "n d_in"]) -> Normalisation:
        """Measured on tokens, in float64. Raises TrainingError if they are constant or not finite."""
        mean = tokens.mean(0, dtype=torch.float64)
        variance = sum(float((chunk.double() - mean).square().sum()) for chunk in tokens.split(65536)) / len(tokens)
        if not np.isfinite(variance):
            raise TrainingError("activations are not finite (NaN or infinite); the model or its precision is at fault")
        if variance == 0:
            raise TrainingError("activations have no variance; this layer carries nothing to learn")
        return cls(mean.float(), (tokens.shape[1] / variance) ** 0.5)


def train(
    tokens: Float[Tensor, "n d_in"] | Iterable[Float[Tensor, "batch d_in"]],
    config: TrainConfig,
    normalisation: Normalisation | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[JumpReLUSAE, pd.DataFrame]:
    """Train an SAE on activations.

    tokens: all of them (batches are drawn without replacement, epoch by epoch), or an iterable of ready
        batches, at least `steps` of them; then `normalisation` must be given.
    checkpoint: kept while training, and resumed from if it holds a state: on a CPU to the same bits as an
        uninterrupted run. An iterable of batches is resumed by passing over those already used.
    Returns the SAE on raw activations, and the history: a row per `log_every` steps with step, recon (mean
        squared error, raw units), l0 (latents per token), l0_fraction, fvu, sparsity, total, dead_fraction.
    Raises TrainingError for activations that cannot be learned.
    """
    if isinstance(tokens, Tensor):
        normalisation = normalisation or Normalisation.of(tokens)
        batches = _shuffled(tokens, config)
    else:
        if normalisation is None:
            raise ValueError("give the normalisation along with an iterable of batches")
        batches = iter(tokens)
    if config.recipe == "published":
        applied = Normalisation(torch.zeros_like(normalisation.mean), 1.0)
    else:
        applied = normalisation
    check_memory(config, len(normalisation.mean), normalisation.mean.device)
    trainer = Trainer(config, applied, normalisation)
    kept = checkpoint.load() if checkpoint else None
    if kept is not None:
        trainer.restore(kept)
        batches = islice(batches, trainer.n_steps, None)
    name = f"SAE {len(normalisation.mean)} -> {config.d_sae}"
    for _ in tqdm(range(trainer.n_steps, config.steps), desc=name, mininterval=5):
        trainer.step(next(batches))
        if checkpoint and checkpoint.due():
            checkpoint.save(trainer.state())
    return trainer.finished(), trainer.history()


def _shuffled(tokens: Tensor, config: TrainConfig) -> Iterator[Tensor]:
    """Batches without replacement, epoch by epoch: a function of the seed."""
    generator = torch.Generator().manual_seed(config.seed)
    size = min(config.batch_size, len(tokens))
    while True:
        order = torch.randperm(len(tokens), generator=generator).to(tokens.device)
        for start in range(0, len(tokens) - size + 1, size):
            yield tokens[order[start : start + size]]


@dataclass(frozen=True)
class _Buffers:
    """Memory of one step's [batch, d_sae] intermediates: taken once, because asking anew costs more than the sums.

    The masks `active` and `near` are floats (0 or 1): products and sums of booleans would copy first.
    """

    z: Tensor
    f: Tensor
    active: Tensor
    near: Tensor

    @classmethod
    def empty(cls, n: int, d_sae: int, device: torch.device) -> _Buffers:
        return cls(*(torch.empty(n, d_sae, device=device) for _ in range(4)))


def check_memory(config: TrainConfig, d_in: int, device: torch.device) -> None:
    """Raise TrainingError if parameters, gradients, Adam's moments and one step's intermediates cannot fit."""
    parameters = config.d_sae * (2 * d_in + 3) * (1 + 1 + 2)
    intermediates = 4 * config.batch_size * config.d_sae
    needed = 4 * (parameters + intermediates)  # float32
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed > free:
        raise TrainingError(
            f"an SAE of {config.d_sae} latents on {d_in} dimensions needs about {needed / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} GiB are free; lower grid.expansions or train_sae.batch_size"
        )


class Trainer:
    """The state of one training run. `step` takes a batch; `finished` folds and returns the SAE."""

    def __init__(self, config: TrainConfig, applied: Normalisation, measured: Normalisation):
        self.config, self.applied, self.measured = config, applied, measured
        device, d_in, d_sae = measured.mean.device, len(measured.mean), config.d_sae
        generator = torch.Generator().manual_seed(config.seed)
        rows = torch.randn(d_sae, d_in, generator=generator).to(device)
        self.W_dec = rows / rows.norm(dim=1, keepdim=True)
        self.W_enc = self.W_dec.T.clone(memory_format=torch.contiguous_format)
        self.b_enc, self.b_dec = torch.zeros(d_sae, device=device), torch.zeros(d_in, device=device)
        self.threshold = torch.zeros(d_sae, device=device)
        self.optimizer = torch.optim.Adam(
            [getattr(self, name) for name in PARAMETERS],
            lr=config.learning_rate,
            betas=ADAM_BETAS,
            fused=True,
        )
        self.silent_steps = torch.zeros(d_sae, device=device)
        self.dead = torch.empty(0, dtype=torch.long, device=device)
        self.n_steps = 0
        self._log: list[Tensor] = []
        self._buffers: _Buffers | None = None

    def step(self, raw: Float[Tensor, "batch d_in"]) -> None:
        """One gradient step on a batch of raw activations."""
        x = (raw - self.applied.mean) * self.applied.scale
        if self.n_steps == 0:
            self._start_thresholds(x)
        b = self._buffers_for(len(x))
        torch.addmm(self.b_enc, x, self.W_enc, out=b.z)
        torch.gt(b.z, self.threshold, out=b.active)
        torch.mul(b.z, b.active, out=b.f)
        residual = torch.addmm(self.b_dec, b.f, self.W_dec).sub_(x)
        fired = b.active.sum(0)
        l0 = fired.sum() / len(x)
        self._set_gradients(x, b, residual, self._sparsity_slope(l0) / len(x))
        if self.config.recipe == "target_l0":
            self._add_revival_gradients(x, residual)
            self._project_decoder_gradient()
        self._update()
        self.silent_steps.add_(1).mul_(fired == 0)
        if self.n_steps % self.config.log_every == 0 or self.n_steps == self.config.steps - 1:
            self._record(residual, l0)
        self.n_steps += 1

    def _start_thresholds(self, x: Tensor) -> None:
        """Thresholds at the start: where the first batch has its target number of active latents."""
        if self.config.recipe == "published":
            self.threshold.fill_(MIN_THRESHOLD)
            return
        z = x @ self.W_enc
        share = min(self.config.target_l0 / self.config.d_sae, 0.5)
        k = max(1, round(share * len(x)))
        self.threshold.copy_(z.topk(k, dim=0).values[-1].clamp_min(MIN_THRESHOLD))

    def _sparsity(self, l0: Tensor) -> Tensor:
        c = self.config
        if c.recipe == "published":
            return c.sparsity_coefficient * l0 / c.d_sae
        return c.sparsity_coefficient * self._warmth() * ((l0 - c.target_l0) / c.target_l0).square()

    def _sparsity_slope(self, l0: Tensor) -> Tensor:
        """Derivative of the sparsity term by L0."""
        c = self.config
        if c.recipe == "published":
            return torch.full_like(l0, c.sparsity_coefficient / c.d_sae)
        return c.sparsity_coefficient * self._warmth() * 2 * (l0 - c.target_l0) / c.target_l0**2

    def _warmth(self) -> float:
        warmup = self.config.warmup_share * self.config.steps
        return 1.0 if warmup == 0 else min(1.0, self.n_steps / warmup)

    def _buffers_for(self, n: int) -> _Buffers:
        if self._buffers is None or len(self._buffers.z) != n:
            self._buffers = _Buffers.empty(n, self.config.d_sae, self.measured.mean.device)
        return self._buffers

    def _set_gradients(self, x: Tensor, b: _Buffers, residual: Tensor, slope: Tensor) -> None:
        g = residual * (2 / residual.numel())
        self.W_dec.grad = b.f.T @ g
        self.b_dec.grad = g.sum(0)
        df = torch.mm(g, self.W_dec.T, out=b.f)
        distance = b.z.sub_(self.threshold).abs_()
        near = torch.lt(distance, self.config.bandwidth / 2, out=b.near)
        pull = self.threshold * torch.mul(df, near, out=b.z).sum(0) + slope * near.sum(0)
        self.threshold.grad = pull.div_(-self.config.bandwidth)
        dz = df.mul_(b.active)
        self.W_enc.grad = x.T @ dz
        self.b_enc.grad = dz.sum(0)

    def _add_revival_gradients(self, x: Tensor, residual: Tensor) -> None:
        """AuxK: the dead latents with the largest pre-activations reconstruct the residual, without bias.

        Their thresholds come down to where each fires on one token of a batch, so that what they learned counts.
        """
        if self.n_steps % REVIVAL_EVERY == 0:
            self.dead = (self.silent_steps >= self.config.dead_after_steps).nonzero().squeeze(1)
        k = min(AUX_LATENTS, len(self.dead))
        if k == 0 or self.config.aux_coefficient == 0:
            return
        W_enc, W_dec = self.W_enc[:, self.dead], self.W_dec[self.dead]
        z = torch.addmm(self.b_enc[self.dead], x, W_enc)
        if self.n_steps % REVIVAL_EVERY == 0:
            self.threshold[self.dead] = torch.minimum(self.threshold[self.dead], z.amax(0) * JUST_BELOW)
        top = z.topk(k, dim=1)
        f = torch.zeros_like(z).scatter_(1, top.indices, top.values.clamp_min(0))
        error = f @ W_dec + residual
        g = error * (2 * self.config.aux_coefficient / error.numel())
        dz = (g @ W_dec.T).mul_(f > 0)
        for parameter, dim, change in (
            (self.W_dec, 0, f.T @ g),
            (self.W_enc, 1, x.T @ dz),
            (self.b_enc, 0, dz.sum(0)),
        ):
            assert parameter.grad is not None
            parameter.grad.index_add_(dim, self.dead, change)

    def _project_decoder_gradient(self) -> None:
        grad = self.W_dec.grad
        assert grad is not None
        grad.sub_((grad * self.W_dec).sum(1, keepdim=True) * self.W_dec)

    def _update(self) -> None:
        self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * self._schedule()
        self.optimizer.step()
        self.threshold.clamp_(min=MIN_THRESHOLD)
        if self.config.recipe == "target_l0":
            self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True))

    def _schedule(self) -> float:
        done, left = (self.n_steps + 1) / self.config.steps, 1 - self.n_steps / self.config.steps
        return min(1.0, done / WARMUP_STEPS_SHARE, left / DECAY_STEPS_SHARE)

    def _record(self, residual: Tensor, l0: Tensor) -> None:
        recon = residual.square().mean()
        raw_recon = recon / self.applied.scale**2
        sparsity = self._sparsity(l0)
        dead = (self.silent_steps >= self.config.dead_after_steps).float().mean()
        step = torch.tensor(float(self.n_steps + 1), device=residual.device)
        fvu = raw_recon * self.measured.scale**2
        self._log.append(
            torch.stack([step, raw_recon, l0, l0 / self.config.d_sae, fvu, sparsity, recon + sparsity, dead])
        )

    def state(self) -> dict[str, Tensor]:
        """Everything the rest of the run depends on, by name."""
        state = {name: getattr(self, name) for name in (*PARAMETERS, "silent_steps", "dead")}
        for name in PARAMETERS:
            for key, value in self.optimizer.state[getattr(self, name)].items():
                state[f"adam.{name}.{key}"] = value
        state["n_steps"] = torch.tensor(self.n_steps)
        state["log"] = torch.stack(self._log)
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        device = self.W_enc.device
        for name in (*PARAMETERS, "silent_steps"):
            getattr(self, name).copy_(state[name])
        for name in PARAMETERS:
            prefix = f"adam.{name}."
            self.optimizer.state[getattr(self, name)] = {
                key.removeprefix(prefix): value.to(device) for key, value in state.items() if key.startswith(prefix)
            }
        self.dead = state["dead"].to(device)
        self.n_steps = int(state["n_steps"])
        self._log = list(state["log"].to(device))

    def history(self) -> pd.DataFrame:
        """The figures kept so far; one transfer from the device."""
        columns = ["step", "recon", "l0", "l0_fraction", "fvu", "sparsity", "total", "dead_fraction"]
        history = pd.DataFrame(torch.stack(self._log).cpu().numpy().astype(np.float64), columns=columns)
        return history.astype({"step": int})

    def finished(self) -> JumpReLUSAE:
        """The SAE on raw activations: centring and scaling folded into its parameters.

        In training z = s (x - m) W_enc + b_enc; dividing b_enc, threshold and b_dec by the scale s
        leaves every f scaled by 1 / s, so W_dec stays of unit norm.
        """
        s, m = self.applied.scale, self.applied.mean
        sae = JumpReLUSAE(len(m), self.config.d_sae, {"recipe": self.config.recipe}).to(m.device)
        b_dec = self.b_dec / s + m
        sae.W_enc.data, sae.W_dec.data, sae.b_dec.data = self.W_enc, self.W_dec, b_dec
        sae.b_enc.data = self.b_enc / s + (b_dec - m) @ self.W_enc
        sae.threshold.data = self.threshold / s
        if not all(torch.isfinite(p).all() for p in sae.parameters()):
            raise TrainingError("training diverged (parameters are not finite); lower train_sae.learning_rate")
        return sae.requires_grad_(False)

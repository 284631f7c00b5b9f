"""Training of one JumpReLU SAE: `train(tokens, config) -> (sae, history)`.

Two recipes share one step, whose gradients are written out in `stages/core/training/gradients.py`:

`published`   loss = mean squared error + coefficient * share of latents active, on raw activations. The published
             tables imply this loss: (total - recon) / L0 = 1e-3 in every row.
`target_l0`   loss = mean squared error + coefficient * ((L0 - target) / target)^2, with the second term warmed up.
             Activations are centred on their mean and scaled to E|x|^2 = d_in. Decoder rows have unit norm (the
             gradient along them is projected out). W_enc starts as W_dec^T. Thresholds start where L0 meets its
             target. Latents that stopped firing learn to reconstruct the residual (AuxK, Gao et al. 2024, arXiv
             2406.04093). At the end the scaling is folded into the weights: the SAE works on raw activations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import pandas as pd
import psutil
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from stages.core.run.compute import ALONE, Ranks, matmul_dtype
from stages.core.sae import JumpReLUSAE
from stages.core.training import gradients, sparsity
from stages.core.training.batches import InMemory, Streamed
from stages.core.training.checkpoint import Checkpoint
from stages.core.training.gradients import EncodedBatch, Encoder, Weights
from stages.core.training.normalisation import Normalisation
from stages.core.training.settings import TrainConfig, TrainingError

WARMUP_STEPS_SHARE, DECAY_STEPS_SHARE = 0.05, 0.8  # of steps: learning rate linear up, constant, linear down
ADAM_BETAS = (0.9, 0.99)
MIN_THRESHOLD = 1e-4  # thresholds stay positive
AUX_LATENTS = 64  # dead latents that reconstruct the residual of one token
JUST_BELOW = 0.999  # a threshold at this share of a pre-activation lies just below it
REVIVAL_EVERY = 10  # steps between two updates of the list of dead latents


def train(
    tokens: Float[Tensor, "n d_in"] | InMemory | Streamed | Iterable[Float[Tensor, "batch d_in"]],
    config: TrainConfig,
    normalisation: Normalisation | None = None,
    checkpoint: Checkpoint | None = None,
    ranks: Ranks = ALONE,
) -> tuple[JumpReLUSAE, pd.DataFrame]:
    """Train a JumpReLU SAE on activations.

    tokens: raw activations: an array of all tokens, a source of batches (`InMemory` or `Streamed`), or an iterable of
        at least `config.steps` batches.
    config: number of latents, recipe, number of steps and all other settings of the training.
    normalisation: mean and scale of the tokens. If not given, they are measured. An iterable of batches needs them.
    checkpoint: where the state of the training is saved. Training continues from a state found there. On a CPU, an
        interrupted training gives the same result to the bit.
    ranks: number of this process, and number of processes that share every batch. All return the same result.
    Returns the SAE, which works on raw activations, and a table with a row per logged step. Its columns are step, recon
    (mean squared error), l0 (active latents per token), l0_fraction (share of d_sae), fvu (fraction of variance
    unexplained), sparsity (term of the loss), total (loss) and dead_fraction (share of latents that are dead).
    Raises TrainingError if activations have no variance or are not finite, if memory is too small, or if training
    diverges. Raises ValueError for an iterable of batches without `normalisation`.
    """
    source = InMemory(tokens, config.batch_size, config.seed, ranks) if isinstance(tokens, Tensor) else tokens
    if normalisation is None:
        if not isinstance(source, InMemory | Streamed):
            raise ValueError("give the normalisation along with an iterable of batches")
        normalisation = Normalisation.from_tokens(source.chunks())
    if config.recipe == "published":
        applied = Normalisation(torch.zeros_like(normalisation.mean), 1.0)
    else:
        applied = normalisation
    _check_memory(config, len(normalisation.mean), normalisation.mean.device)
    trainer = Trainer(config, applied, normalisation, ranks)
    kept = checkpoint.load() if checkpoint else None
    if kept is not None:
        trainer.restore(kept)
    batches = _starting_at(trainer.n_steps, source)
    name = f"SAE {len(normalisation.mean)} -> {config.d_sae}"
    with tqdm(total=config.steps, initial=trainer.n_steps, desc=name, mininterval=5, disable=not ranks.first) as bar:
        while trainer.n_steps < config.steps:
            if trainer.step(next(batches)):
                bar.set_postfix_str(trainer.summary(), refresh=False)
            bar.update()
            if checkpoint and ranks.first and (checkpoint.due() or trainer.n_steps == config.steps):
                checkpoint.save(trainer.state())
    return trainer.finished(), trainer.history()


def _starting_at(step: int, source: InMemory | Streamed | Iterable[Tensor]) -> Iterator[Tensor]:
    if isinstance(source, InMemory | Streamed):
        return source.starting_at(step)
    return islice(iter(source), step, None)


def _check_memory(config: TrainConfig, d_in: int, device: torch.device) -> None:
    """Raise TrainingError if parameters, gradients, Adam's moments and one step's intermediates cannot fit."""
    parameters = config.d_sae * (2 * d_in + 3) * (1 + 1 + 2)
    intermediates = (4 if device.type == "cuda" else 1) * config.batch_size * config.d_sae
    needed = 4 * (parameters + intermediates)  # float32
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed > free:
        raise TrainingError(
            f"an SAE of {config.d_sae} latents on {d_in} dimensions needs about {needed / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} GiB are free; lower grid.expansions or train_sae.batch_size"
        )


class Trainer:
    """The state of one training run: weights, optimiser, counters and log.

    The method `step` learns from one batch. The method `finished` returns the SAE, which works on raw activations.
    config: settings of the training.
    applied: mean and scale used to normalise activations. With the recipe `published` these are 0 and 1.
    measured: mean and scale of the tokens, with which FVU (fraction of variance unexplained) is computed.
    ranks: number of this process, and number of processes that share every batch.
    """

    def __init__(self, config: TrainConfig, applied: Normalisation, measured: Normalisation, ranks: Ranks = ALONE):
        self.config, self.applied, self.measured, self.ranks = config, applied, measured, ranks
        device, d_in, d_sae = measured.mean.device, len(measured.mean), config.d_sae
        generator = torch.Generator().manual_seed(config.seed)
        directions = torch.randn(d_sae, d_in, generator=generator).to(device)
        directions /= directions.norm(dim=1, keepdim=True)
        per_latent = torch.zeros(d_sae, device=device)
        self.weights = Weights(
            encoder=directions.clone(),
            b_enc=per_latent.clone(),
            decoder=directions,
            b_dec=torch.zeros(d_in, device=device),
            threshold=per_latent.clone(),
        )
        self.gradients = self.weights.zeros_like()
        for (_, weight), (_, gradient) in zip(self.weights.named(), self.gradients.named(), strict=True):
            weight.grad = gradient
        self.optimizer = torch.optim.Adam(
            [weight for _, weight in self.weights.named()], lr=config.learning_rate, betas=ADAM_BETAS, fused=True
        )
        self.encoder = Encoder(self.weights, matmul_dtype(config.precision, device))
        self.silent_steps = per_latent.clone()
        self.dead = torch.empty(0, dtype=torch.long, device=device)
        self.n_steps = 0
        self._log: list[Tensor] = []

    def step(self, raw: Float[Tensor, "share d_in"]) -> bool:
        """Take one gradient step on a batch of raw activations.

        raw: the part of the batch that this process works on.
        Loss, FVU (fraction of variance unexplained), L0 (active latents per token) and share of dead latents are
        logged at the first step, then every `log_every` steps, and at the last step.
        Returns True if this step was logged.
        """
        x = (raw - self.applied.mean) * self.applied.scale
        if self.n_steps == 0:
            self._start_thresholds(x)
        found = gradients.forward(EncodedBatch(self.weights, self.config.bandwidth, x, self.encoder(x)))
        n = torch.tensor(float(len(x)), device=x.device)
        self.ranks.sum(found.fired, n)
        l0 = found.fired.sum() / n
        per_entry = 1 / (n * x.shape[1])
        slope = sparsity.slope(self.config, self.n_steps, l0) / n
        found.backward(self.gradients, found.residual * (2 * per_entry), slope)
        if self.config.recipe == "target_l0":
            self._add_revival_gradients(x, found.residual, per_entry)
        self.ranks.sum(*(gradient for _, gradient in self.gradients.named()))
        if self.config.recipe == "target_l0":
            _project_out(self.gradients.decoder, self.weights.decoder)
        self._update()
        self.silent_steps.add_(1).mul_(found.fired == 0)
        logged = self.n_steps % self.config.log_every == 0 or self.n_steps == self.config.steps - 1
        if logged:
            recon = found.residual.square().sum() * per_entry
            self.ranks.sum(recon)
            self._record(recon, l0)
        self.n_steps += 1
        return logged

    def _start_thresholds(self, x: Tensor) -> None:
        """Set the first thresholds: with `target_l0`, where L0 of the first batch x meets its target."""
        if self.config.recipe == "published":
            self.weights.threshold.fill_(MIN_THRESHOLD)
            return
        z = self.weights.encoder @ self.ranks.joined(x).T
        share = min(self.config.target_l0 / self.config.d_sae, 0.5)
        k = max(1, round(share * z.shape[1]))
        self.weights.threshold.copy_(z.topk(k, dim=1).values[:, -1].clamp_min(MIN_THRESHOLD))

    def _add_revival_gradients(self, x: Tensor, residual: Tensor, per_entry: Tensor) -> None:
        """Add AuxK's gradients: dead latents with the largest pre-activations reconstruct the residual, without bias.

        The threshold of each dead latent is lowered until it fires on one token of a batch. Otherwise what the latent
        learned would have no effect.
        """
        refresh = self.n_steps % REVIVAL_EVERY == 0
        if refresh:
            self.dead = (self.silent_steps >= self.config.dead_after_steps).nonzero().squeeze(1)
        k = min(AUX_LATENTS, len(self.dead))
        if k == 0 or self.config.aux_coefficient == 0:
            return
        encoder, decoder = self.weights.encoder[self.dead], self.weights.decoder[self.dead]
        z = torch.addmm(self.weights.b_enc[self.dead], x, encoder.T)
        if refresh:
            highest = z.amax(0)
            self.ranks.max(highest)
            threshold = self.weights.threshold
            threshold[self.dead] = torch.minimum(threshold[self.dead], highest * JUST_BELOW)
        top = z.topk(k, dim=1)
        f = torch.zeros_like(z).scatter_(1, top.indices, top.values.clamp_min(0))
        g = (f @ decoder + residual) * (2 * self.config.aux_coefficient * per_entry)
        dz = (g @ decoder.T).mul_(f > 0)
        self.gradients.decoder.index_add_(0, self.dead, f.T @ g)
        self.gradients.encoder.index_add_(0, self.dead, dz.T @ x)
        self.gradients.b_enc.index_add_(0, self.dead, dz.sum(0))

    def _update(self) -> None:
        self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * self._schedule()
        self.optimizer.step()
        self.weights.threshold.clamp_(min=MIN_THRESHOLD)
        if self.config.recipe == "target_l0":
            self.weights.decoder.div_(self.weights.decoder.norm(dim=1, keepdim=True))

    def _schedule(self) -> float:
        done, left = (self.n_steps + 1) / self.config.steps, 1 - self.n_steps / self.config.steps
        return min(1.0, done / WARMUP_STEPS_SHARE, left / DECAY_STEPS_SHARE)

    def _record(self, recon: Tensor, l0: Tensor) -> None:
        raw_recon = recon / self.applied.scale**2
        penalty = sparsity.term(self.config, self.n_steps, l0)
        dead = (self.silent_steps >= self.config.dead_after_steps).float().mean()
        step = torch.tensor(float(self.n_steps + 1), device=recon.device)
        fvu = raw_recon * self.measured.scale**2
        self._log.append(
            torch.stack([step, raw_recon, l0, l0 / self.config.d_sae, fvu, penalty, recon + penalty, dead])
        )

    def state(self) -> dict[str, Tensor]:
        """Return all that the rest of the run depends on, as tensors by name. The method `restore` reads them.

        encoder, b_enc, decoder, b_dec, threshold: parameters of the SAE.
        silent_steps: steps since each latent fired. dead: indices of dead latents.
        adam.<parameter>.<name>: state of the optimiser Adam for each parameter.
        n_steps: steps done. log: a row of numbers per logged step.
        """
        state = dict(self.weights.named()) | {"silent_steps": self.silent_steps, "dead": self.dead}
        for name, weight in self.weights.named():
            for key, value in self.optimizer.state[weight].items():
                state[f"adam.{name}.{key}"] = value
        state["n_steps"] = torch.tensor(self.n_steps)
        state["log"] = torch.stack(self._log)
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from a saved state: set weights, optimiser, counters and log to it.

        state: what the method `state` returned in a run with the same settings.
        """
        device = self.silent_steps.device
        self.silent_steps.copy_(state["silent_steps"])
        for name, weight in self.weights.named():
            weight.copy_(state[name])
            prefix = f"adam.{name}."
            self.optimizer.state[weight] = {
                key.removeprefix(prefix): value.to(device) for key, value in state.items() if key.startswith(prefix)
            }
        self.dead = state["dead"].to(device)
        self.n_steps = int(state["n_steps"])
        self._log = list(state["log"].to(device))

    def summary(self) -> str:
        """Return text for the progress bar, from the last logged step. Waits for the device to finish.

        The text gives FVU (fraction of variance unexplained), L0 (active latents per token) and the share of dead
        latents.
        """
        _, _, l0, _, fvu, _, _, dead = self._log[-1].tolist()
        return f"FVU {fvu:.3f}, L0 {l0:.0f}, dead {dead:.1%}"

    def history(self) -> pd.DataFrame:
        """Return what was logged so far: a row per logged step, measured on the batch of that step.

        step             number of the step, from 1
        recon            mean squared error over tokens and dimensions, raw units
        l0, l0_fraction  active latents per token, and the same as a share of d_sae
        fvu              fraction of variance unexplained
        sparsity         sparsity term of the loss
        total            mean squared error in the units of training, plus sparsity. The term that revives dead latents
                         (AuxK) is left out
        dead_fraction    share of latents that have not fired for at least `dead_after_steps` steps
        """
        columns = ["step", "recon", "l0", "l0_fraction", "fvu", "sparsity", "total", "dead_fraction"]
        history = pd.DataFrame(torch.stack(self._log).cpu().numpy().astype(np.float64), columns=columns)
        return history.astype({"step": int})

    def finished(self) -> JumpReLUSAE:
        """Return the SAE as trained so far, with frozen parameters. It works on raw activations x.

        Training works on s (x - m), with the mean m and the scale s of the normalisation. In the returned SAE, b_enc,
        threshold and b_dec are divided by s, and m is added to b_dec. b_enc is then adapted, because this SAE subtracts
        b_dec from x. Its activations are those of training, divided by s. W_enc and W_dec are unchanged.
        Raises TrainingError if a parameter is not finite.
        """
        s, m, weights = self.applied.scale, self.applied.mean, self.weights
        sae = JumpReLUSAE(len(m), self.config.d_sae, {"recipe": self.config.recipe}).to(m.device)
        b_dec = weights.b_dec / s + m
        sae.W_enc.data, sae.W_dec.data, sae.b_dec.data = weights.encoder.T.contiguous(), weights.decoder, b_dec
        sae.b_enc.data = weights.b_enc / s + (b_dec - m) @ sae.W_enc.data
        sae.threshold.data = weights.threshold / s
        if not all(torch.isfinite(p).all() for p in sae.parameters()):
            raise TrainingError("training diverged (parameters are not finite); lower train_sae.learning_rate")
        return sae.requires_grad_(False)


def _project_out(gradient: Float[Tensor, "n d"], unit: Float[Tensor, "n d"]) -> None:
    """Remove from each row of `gradient` its component along the same row of `unit`, a unit vector."""
    along = torch.bmm(gradient[:, None], unit[:, :, None])[:, 0]
    gradient.addcmul_(unit, along, value=-1)

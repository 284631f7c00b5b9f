"""Recovery of a known dictionary (`toy.py`: 512 features in 64 dimensions, eight active) by 512 latents.

    python -m tests.bench.recovery [--seeds 3] [--threads 2] [--search]

1. What our recipes end with: the mean over true features of the best decoder row's cosine, latents active per
   sample, share of dead latents and fraction of variance unexplained, on samples kept aside.
2. Time to quality: seconds of training until that cosine is .9 and L0 within 20 % of the truth. All train on the same
   batches of the same tokens; every 50 steps the clock stops for a look. Evaluation, the making of data and the
   estimate of its scale are off the clock. Peers get ten times our time, at least a minute, or the steps of their
   schedule, whichever ends first.

Every trainer runs twice. "as documented": the peers with the examples of their documentation (`peers.py`), ours with
the defaults of `TrainConfig`; target L0 and number of steps aside. "tuned to the toy": the quickest on seed 0 (or as
quick as any) of the seven settings a trainer that `SETTINGS` lists and `--search` runs. They vary the knobs that the
documentation itself names: learning rate, coefficient, bandwidth, warm-up, loss. The peers' documented settings are
meant for billions of tokens, while our defaults were chosen for runs as short as these, on this toy among others: it
is the tuned runs that compare like with like.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stages.core.training import TrainConfig, train
from tests.bench.peers import PUBLISHED, Contender, DictionaryLearning, Ours, SaeLens, saelens_quadratic, saelens_tanh
from tests.bench.table import markdown
from tests.bench.toy import Toy, dead_share, l0

D_SAE, N_ACTIVE, BATCH = 512, 8, 1024
N_TOKENS, N_HELD_OUT = 2**18, 2**12
COSINE, L0_SLACK = 0.9, 0.2  # the bar
LOOK_EVERY = 50  # steps
LEAST_SECONDS, TIMES_OURS = 60.0, 10.0  # of training, for a peer
TRIED, DOCUMENTED, TUNED = "tried", "as documented", "tuned to the toy"


@dataclass(frozen=True, eq=False)
class Setting:
    """A trainer, the steps of its schedule, and its other arguments."""

    trainer: type[Ours] | type[SaeLens] | type[DictionaryLearning]
    role: str
    steps: int
    kwargs: dict[str, Any] = field(default_factory=dict)

    def start(self, tokens: Tensor, seed: int) -> Contender:
        return self.trainer(tokens, d_sae=D_SAE, steps=self.steps, batch_size=BATCH, seed=seed, **self.kwargs)

    def __str__(self) -> str:
        details = "" if self.role == DOCUMENTED else f" ({', '.join(f'{k} {v}' for k, v in self.kwargs.items())})"
        return f"{self.trainer.name}, {self.role}{details}"


def _ours(role: str, steps: int, **kwargs: Any) -> Setting:
    return Setting(Ours, role, steps, {"target_l0": N_ACTIVE} | kwargs)


def _sae_lens(role: str, steps: int, **kwargs: Any) -> Setting:
    return Setting(SaeLens, role, steps, {"normalize_activations": "expected_average_only_in"} | kwargs)


def _dictionary_learning(role: str, steps: int, **kwargs: Any) -> Setting:
    return Setting(DictionaryLearning, role, steps, {"target_l0": N_ACTIVE} | kwargs)


WIDE = {"bandwidth": 0.1, "sparsity_penalty": 10.0}  # the documented bandwidth hardly moves a threshold on this scale
SETTINGS = (
    _ours(DOCUMENTED, 1500),
    _ours(TRIED, 1500, learning_rate=2e-2),
    _ours(TRIED, 1500, bandwidth=0.3),
    _ours(TRIED, 1500, warmup_share=0.0),
    _ours(TRIED, 1500, warmup_share=0.0, bandwidth=0.3),
    _ours(TUNED, 1200, warmup_share=0.0, bandwidth=0.3),
    _ours(TRIED, 1000, warmup_share=0.0, bandwidth=0.3),
    _sae_lens(DOCUMENTED, 8000, **saelens_tanh(8000)),
    _sae_lens(TRIED, 8000, lr=3e-3, **saelens_tanh(8000)),
    _sae_lens(TRIED, 8000, **saelens_quadratic(N_ACTIVE)),
    _sae_lens(TRIED, 4000, lr=3e-3, **saelens_quadratic(N_ACTIVE) | {"jumprelu_bandwidth": 0.05}),
    _sae_lens(TUNED, 4000, lr=2e-3, lr_decay_steps=800),
    _sae_lens(TRIED, 5000, lr=3e-3, lr_decay_steps=1000),
    _sae_lens(TRIED, 3000, lr=2e-3, lr_decay_steps=600, l0_coefficient=0.12, normalize_activations="none"),
    _dictionary_learning(DOCUMENTED, 20_000),
    _dictionary_learning(TRIED, 20_000, lr=1e-3),
    _dictionary_learning(TRIED, 4000, lr=3e-4, warmup_steps=10, sparsity_warmup_steps=50, decay_start=3200),
    _dictionary_learning(TRIED, 5000, lr=1e-3, **WIDE),
    _dictionary_learning(TRIED, 3000, lr=3e-3, **WIDE),
    _dictionary_learning(TUNED, 3000, lr=1e-2, **WIDE),
    _dictionary_learning(TRIED, 2000, lr=3e-3, warmup_steps=100, sparsity_warmup_steps=1000, decay_start=1400, **WIDE),
)
RUN = [setting for setting in SETTINGS if setting.role != TRIED]
RECIPES = {
    "`published`, as in paper.yaml": {"steps": 3000, **PUBLISHED},
    "`published`, tuned to the toy": {"steps": 3000, **PUBLISHED, "learning_rate": 1e-2, "sparsity_coefficient": 2.0},
    **{f"`target_l0`, {s.role}": {"steps": s.steps, **s.kwargs} for s in RUN if s.trainer is Ours},
}


def recoveries(seeds: range) -> str:
    """The table of what our recipes end with."""
    rows = []
    for name, config in RECIPES.items():
        for seed in seeds:
            toy = Toy(seed, n_active=N_ACTIVE)
            tokens, held_out = toy.tokens(N_TOKENS), toy.tokens(N_HELD_OUT)
            sae, _ = train(tokens, TrainConfig(d_sae=D_SAE, batch_size=BATCH, seed=seed, **config))
            f = sae.encode(held_out)
            fvu = float((sae.decode(f) - held_out).square().sum() / (held_out - held_out.mean(0)).square().sum())
            figures = (toy.mean_best_cosine(sae.W_dec), l0(f), dead_share(f), fvu)
            rows.append((name, str(seed), *(f"{figure:.3f}" for figure in figures)))
    return markdown(("recipe", "seed", "mean best cosine", f"L0 (truth {N_ACTIVE})", "dead", "FVU"), rows)


@dataclass(frozen=True)
class Outcome:
    """Where a run stood when it met the bar, or was stopped."""

    met: bool
    seconds: float
    steps: int
    cosine: float
    l0: float


def time_to_quality(setting: Setting, seed: int, limit: float = float("inf")) -> Outcome:
    """Train until the bar is met, the schedule ends, or so many seconds of training are spent."""
    toy = Toy(seed, n_active=N_ACTIVE)
    tokens, held_out = toy.tokens(N_TOKENS), toy.tokens(N_HELD_OUT)
    contender, batches = setting.start(tokens, seed), _shuffled(tokens, seed)
    n_steps, spent = 0, 0.0
    while True:
        ready = [next(batches) for _ in range(LOOK_EVERY)]
        start = time.perf_counter()
        for x in ready:
            contender.step(x)
        spent += time.perf_counter() - start
        n_steps += LOOK_EVERY
        cosine, active = toy.mean_best_cosine(contender.decoder()), l0(contender.encode(held_out))
        met = cosine >= COSINE and abs(active / N_ACTIVE - 1) <= L0_SLACK
        if met or spent >= limit or n_steps >= setting.steps:
            return Outcome(met, spent, n_steps, cosine, active)


def _shuffled(tokens: Tensor, seed: int) -> Iterator[Tensor]:
    """Batches without replacement, epoch by epoch."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        for chosen in torch.randperm(len(tokens), generator=generator).split(BATCH):
            yield tokens[chosen]


def race(settings: Sequence[Setting], seeds: range) -> str:
    """The table of times to quality."""
    rows = []
    for seed in seeds:
        outcomes = {s: time_to_quality(s, seed) for s in settings if s.trainer is Ours}
        fastest = min((outcome.seconds for outcome in outcomes.values() if outcome.met), default=0.0)
        limit = max(LEAST_SECONDS, TIMES_OURS * fastest)
        outcomes |= {s: time_to_quality(s, seed, limit) for s in settings if s.trainer is not Ours}
        for setting, o in outcomes.items():
            seconds = f"{o.seconds:.1f}" if o.met else f"not within {o.seconds:.0f}"
            rows.append((str(setting), str(seed), seconds, f"{o.steps}", f"{o.cosine:.3f}", f"{o.l0:.1f}"))
    return markdown(("trainer", "seed", "seconds", "steps", "cosine reached", "L0 reached"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Recovery of a known dictionary: ours and its peers.")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--threads", type=int, help="torch's own choice if not given")
    parser.add_argument("--search", action="store_true", help="run all settings tried, on seed 0, and nothing else")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"\ntorch {torch.__version__}, {torch.get_num_threads()} threads\n")
    if args.search:
        print(race(SETTINGS, range(1)))
        return
    print(recoveries(range(args.seeds)), end="\n\n", flush=True)
    print(race(RUN, range(args.seeds)))


if __name__ == "__main__":
    main()

"""Seconds of one training step: ours, SAELens' and dictionary-learning's JumpReLU trainers, and the floor below them.

    python -m tests.bench.speed [--sizes 256x4096x1024 ...] [--rounds 7] [--threads 2]

The floor is the five matrix products of a dense step (x W_enc, f W_dec, g W_dec^T, f^T g, x^T dz) in float32, into
memory taken beforehand. All trainers learn from the same activations (sparse codes over a dictionary of as many
features as there are latents, 64 active) and take turns of about half a second, round after round, so that what
disturbs the machine disturbs all of them; the table gives medians over the rounds.

"dense" is our `published` recipe, at whose start half of the latents are active; "sparse" is `target_l0` with 64
active latents. The peers come as documented, in float32: SAELens with its tanh loss, its quicker one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import cycle, islice
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from tests.bench.peers import PUBLISHED, Contender, DictionaryLearning, Ours, SaeLens, saelens_tanh
from tests.bench.table import markdown
from tests.bench.toy import Toy

FLOOR = "five products"
N_ACTIVE = 64
N_BATCHES = 8
STEPS = 10_000  # planned: all schedules are near their beginning
TURN_SECONDS = 0.5
COLUMNS = ("trainer", "s / step", "tokens / s", "time, × five products", "speed, × faster peer")

Step = Callable[[Tensor], object]


class Size(NamedTuple):
    """Input width, latents, tokens per step."""

    d_in: int
    d_sae: int
    batch: int

    @classmethod
    def parse(cls, text: str) -> Size:
        return cls(*map(int, text.split("x")))

    @property
    def rounds(self) -> int:
        return 5 if self.d_in * self.d_sae >= 2**24 else 7


SIZES = (Size(128, 4096, 1024), Size(256, 4096, 1024), Size(1024, 16384, 1024))  # the first is the demo's


def floor(size: Size) -> Step:
    """The five products and nothing else."""
    W_enc, W_dec = torch.randn(size.d_in, size.d_sae), torch.randn(size.d_sae, size.d_in)
    z, f = torch.randn(size.batch, size.d_sae), torch.randn(size.batch, size.d_sae)
    g, d_enc, d_dec = torch.randn(size.batch, size.d_in), torch.empty_like(W_enc), torch.empty_like(W_dec)
    x_hat = torch.empty_like(g)

    def step(x: Tensor) -> None:
        torch.mm(x, W_enc, out=z)
        torch.mm(f, W_dec, out=x_hat)
        torch.mm(g, W_dec.T, out=z)
        torch.mm(f.T, g, out=d_dec)
        torch.mm(x.T, z, out=d_enc)

    return step


def trainers(size: Size, tokens: Tensor) -> tuple[dict[str, Step], dict[str, Step]]:
    """Ours and the peers', by name, in the order of their turns."""
    plan = {"d_sae": size.d_sae, "steps": STEPS, "batch_size": size.batch}
    sparse = plan | {"target_l0": N_ACTIVE, "warmup_share": 0.0}
    ours = {
        "ours, dense, float32": Ours(tokens, **plan, **PUBLISHED, precision="float32"),
        "ours, sparse, float32": Ours(tokens, **sparse, precision="float32"),
        "ours, sparse, default precision": Ours(tokens, **sparse, precision="auto"),
    }
    peers: list[Contender] = [
        SaeLens(tokens, **plan, **saelens_tanh(STEPS)),
        DictionaryLearning(tokens, **plan, target_l0=N_ACTIVE),
    ]
    return (
        {name: trainer.step for name, trainer in ours.items()},
        {f"{peer.name} {peer.version}": peer.step for peer in peers},
    )


def seconds_a_step(steps: dict[str, Step], batches: list[Tensor], rounds: int) -> dict[str, float]:
    """Medians over rounds of turns."""
    for step in steps.values():
        _seconds(step, batches, 2)  # warm
    lengths = {name: max(1, round(TURN_SECONDS / _seconds(step, batches, 1))) for name, step in steps.items()}
    turns = [{name: _seconds(step, batches, lengths[name]) for name, step in steps.items()} for _ in range(rounds)]
    return {name: median(turn[name] for turn in turns) for name in steps}


def _seconds(step: Step, batches: list[Tensor], n: int) -> float:
    start = time.perf_counter()
    for x in islice(cycle(batches), n):
        step(x)
    return (time.perf_counter() - start) / n


def measure(size: Size, rounds: int) -> str:
    """The table of one size."""
    tokens = Toy(0, size.d_in, size.d_sae, N_ACTIVE).tokens(N_BATCHES * size.batch)
    ours, peers = trainers(size, tokens)
    seconds = seconds_a_step({FLOOR: floor(size), **ours, **peers}, list(tokens.split(size.batch)), rounds)
    faster_peer = min(seconds[name] for name in peers)
    return markdown(
        COLUMNS,
        (
            (name, f"{s:.4f}", f"{size.batch / s:,.0f}", f"{s / seconds[FLOOR]:.2f}", f"{faster_peer / s:.2f}")
            for name, s in seconds.items()
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of one training step: ours and its peers.")
    parser.add_argument("--sizes", nargs="+", type=Size.parse, default=SIZES, metavar="DxNxBATCH")
    parser.add_argument("--rounds", type=int, help="7, or 5 for large sizes, if not given")
    parser.add_argument("--threads", type=int, help="torch's own choice if not given")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    for size in args.sizes:
        rounds = args.rounds or size.rounds
        print(f"\nd_in {size.d_in}, {size.d_sae} latents, batch {size.batch}; ", end="")
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {rounds} rounds\n")
        print(measure(size, rounds), flush=True)


if __name__ == "__main__":
    main()

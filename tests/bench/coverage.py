"""How often an interval over women covers the mean of the population (coverage), and how wide it is.

    python -m tests.bench.coverage [--women 12 20 40] [--replicates 1000] [--outcomes | --unbounded]

A replicate draws some women with 4 pairs each, and asks for the interval of a mean at 95 %.

Outcomes (right or wrong) of one woman are alike: her own rates are drawn from a beta or Dirichlet distribution with
intraclass correlation rho. Readouts R are 0 or below and skewed. `interval` is compared with the percentile interval of
the same resamples, and with Student's t interval of the women's means.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import scipy

from stages.core.paired import interval
from stages.core.paired.bootstrap import resample_women
from stages.core.paired.bounded import Bounds
from tests.bench.table import markdown

N_PAIRS, CONFIDENCE, N_BOOTSTRAP = 4, 0.95, 999
Rng = np.random.Generator
Draw = Callable[[Rng, int], np.ndarray]  # women -> values [woman, pair]


def rates(rng: Rng, women: int, means: list[float], rho: float) -> np.ndarray:
    """Each woman's own rates of the outcomes [woman, outcome], Dirichlet with intraclass correlation rho."""
    drawn = rng.gamma(np.array(means) * (1 - rho) / rho, size=(women, len(means)))
    return drawn / drawn.sum(1, keepdims=True)


def outcome(rng: Rng, women: int, up: float, down: float, rho: float) -> np.ndarray:
    """1 with mean rate `up`, -1 with mean rate `down`, else 0."""
    own = rates(rng, women, [up, down + 1e-9, 1 - up - down], rho)
    uniform = rng.random((women, N_PAIRS))
    return (uniform < own[:, :1]).astype(float) - (uniform > 1 - own[:, 1:2])


def iou(rng: Rng, women: int) -> np.ndarray:
    """Overlaps around .2, which are not 0 or 1: half of the variance lies between women."""
    own = rng.beta(2, 8, size=(women, 1))
    return (own + rng.beta(2, 8, size=(women, N_PAIRS))) / 2


def mixture(rng: Rng, women: int, share: float, rho: float) -> np.ndarray:
    """Nearly 0 (exponential, mean .05), but lognormal on a share of the images."""
    own = rates(rng, women, [share, 1 - share], rho)[:, :1]
    large = rng.random((women, N_PAIRS)) < own
    return np.where(large, rng.lognormal(size=large.shape), rng.exponential(0.05, size=large.shape))


def exponential(rng: Rng, women: int) -> np.ndarray:
    return rng.exponential(size=(women, 1)) * rng.exponential(size=(women, N_PAIRS))


def lognormal_women(rng: Rng, women: int) -> np.ndarray:
    return np.repeat(rng.lognormal(size=(women, 1)), N_PAIRS, axis=1)


def gains_of_R(rng: Rng, women: int) -> np.ndarray:
    own = rates(rng, women, [0.1, 0.9], 0.1)[:, :1]
    large = rng.random((women, N_PAIRS)) < own
    return np.where(large, rng.exponential(size=large.shape), rng.normal(0, 0.02, size=large.shape))


MIXTURE_MEAN = 0.2 * np.exp(0.5) + 0.8 * 0.05
OUTCOMES: dict[str, tuple[Draw, float, Bounds]] = {
    f"accuracy {p:g}, rho {rho:g}": (partial(outcome, up=p, down=0.0, rho=rho), p, (0.0, 1.0))
    for p, rho in [(0.5, 0.1), (0.9, 0.1), (0.98, 0.05), (0.98, 0.3), (0.995, 0.05), (0.995, 0.3)]
} | {
    f"{name}, rho {rho:g}": (partial(outcome, up=up, down=down, rho=rho), up - down, (-1.0, 1.0))
    for name, up, down, rho in [
        ("no gain, no loss", 0.0, 0.0, 0.1),
        ("gain .01", 0.01, 0.0, 0.05),
        ("gain .01, loss .005", 0.01, 0.005, 0.05),
        ("gain .02", 0.02, 0.0, 0.3),
        ("gain .05, loss .02", 0.05, 0.02, 0.1),
        ("gain .3, loss .3", 0.3, 0.3, 0.1),
        ("gain .47, loss .01", 0.47, 0.01, 0.1),
        ("gain .47, loss .01", 0.47, 0.01, 0.3),
        ("gap .69", 0.69, 0.0, 0.1),
        ("gap .97", 0.975, 0.005, 0.1),
    ]
}
OUTCOMES |= {
    "IoU": (iou, 0.2, (0.0, 1.0)),
    "gap of IoU": (lambda rng, women: iou(rng, women) - iou(rng, women), 0.0, (-1.0, 1.0)),
}
UNBOUNDED: dict[str, tuple[Draw, float, None]] = {
    "normal": (lambda rng, women: rng.normal(size=(women, 1)) + rng.normal(size=(women, N_PAIRS)), 0.0, None),
    "R: exponential": (lambda rng, women: -exponential(rng, women), -1.0, None),
    "R: exponential and lognormal": (lambda rng, women: -mixture(rng, women, 0.2, 0.2), -MIXTURE_MEAN, None),
    "R: lognormal over women": (lambda rng, women: -lognormal_women(rng, women), -np.exp(0.5), None),
    "gain of R, 9 of 10 nearly 0": (gains_of_R, 0.1, None),
    "gap of R": (
        lambda rng, women: mixture(rng, women, 0.2, 0.2) - rng.exponential(0.05, size=(women, N_PAIRS)),
        MIXTURE_MEAN - 0.05,
        None,
    ),
}


def percentile(values: np.ndarray, seed: int) -> tuple[float, float]:
    means = resample_women(len(values), N_BOOTSTRAP, seed) @ values.mean(1) / len(values)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return low, high


def student(values: np.ndarray) -> tuple[float, float]:
    means = values.mean(1)
    half = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
    return means.mean() - half, means.mean() + half


def in_use(values: np.ndarray, bounds: Bounds | None, seed: int) -> tuple[float, float]:
    women = np.repeat(np.arange(len(values)), N_PAIRS)
    settings = {"n_bootstrap": N_BOOTSTRAP, "confidence": CONFIDENCE, "seed": seed, "bounds": bounds}
    found = interval(values.ravel(), women, **settings)
    return found.low, found.high


def measure(draw: Draw, mean: float, bounds: Bounds | None, women: int, n: int) -> dict[str, np.ndarray]:
    """The intervals of `n` replicates [n, 2] by method, minus the true mean."""
    found: dict[str, list] = {"percentile": [], "Student's t": [], "`interval`": []}
    for seed in range(n):
        values = draw(np.random.default_rng(seed), women)
        for ends, method in zip(
            (percentile(values, seed), student(values), in_use(values, bounds, seed)), found, strict=True
        ):
            found[method].append(ends)
    return {method: np.array(ends) - mean for method, ends in found.items()}


def coverage(ends: np.ndarray) -> float:
    """The share of intervals [n, 2], minus the true mean, that cover 0 but for rounding."""
    return float(((ends[:, 0] <= 1e-9) & (ends[:, 1] >= -1e-9)).mean())


def cell(ends: np.ndarray) -> str:
    share, width = coverage(ends), np.median(ends[:, 1] - ends[:, 0])
    return f"{share:.3f} ± {np.sqrt(share * (1 - share) / len(ends)):.3f} ({width:.2g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--women", type=int, nargs="+", default=[12, 20, 40])
    parser.add_argument("--replicates", type=int, default=1000)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--outcomes", action="store_true")
    which.add_argument("--unbounded", action="store_true")
    args = parser.parse_args()
    cases = (OUTCOMES if not args.unbounded else {}) | (UNBOUNDED if not args.outcomes else {})
    for women in args.women:
        print(f"\n{women} women, {args.replicates} replicates. Coverage (median width):\n")
        measured = {name: measure(*case, women, args.replicates) for name, case in cases.items()}
        methods = list(next(iter(measured.values())))
        rows = [[name, *map(cell, found.values())] for name, found in measured.items()]
        print(markdown(["mean of", *methods], rows), flush=True)


if __name__ == "__main__":
    main()

"""How often a rule names a latent that does no harm (family-wise error), and how often it finds one that does (power).

    python -m tests.bench.family_wise_error [--women 12 20 40] [--latents 500] [--replicates 300] [--shapes NAME ...]

A replicate draws the gaps of some women for some latents, and asks each rule for the latents that harm. A woman has 4
to 7 pairs. The gaps of a latent vary over women with a standard deviation of .1 nats (SD), and half as much over the
pairs of a woman. The smallest effect that counts is .01 nats. In the table of errors no latent harms: all means over
the population are 0. In the table of power five latents harm. If `data/analysis` has a finished run, its own gaps on
discovery women are used too.

Rules; each demands a family-wise p of at most the level, and an estimate above the smallest effect:

    flips, interval    two-sided max-T of sign flips over all latents; the percentile interval is above the smallest
                       effect too
    flips, harm        one-sided max-T of sign flips over the latents that act (mean |gap of a woman| >= .01)
    flips, shifted     the same, of gap - .01
    halves             the eight largest t of half of the women, then one-sided sign flips of the other half
    bootstrap          `romano_wolf.step_down` over the latents that act
    harm_p             the same, over the latents that act on at least 4.3 effective women, of which those are named
                       that act on log2(1 / level) or more: the rule in use
    harm_p, shifted    the same, of gap - .01
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from stages.core.paired.bootstrap import resample_women
from stages.core.paired.clusters import by_cluster, means_and_errors
from stages.core.paired.romano_wolf import in_family, nameable, step_down
from tests.bench.table import markdown

SD, MIN_EFFECT = 0.1, 0.01
N_RESAMPLES, N_HARMFUL, N_KEPT = 399, 5, 8
LEVELS = (0.05, 0.005)
SHIFTS = (0.5, 1.0, 1.5)
PAIRS = (4, 8)  # a woman has 4 to 7 pairs
WITHIN = 0.5  # spread over the pairs of a woman, in units of the spread over women
ANALYSIS, DATASET = Path("data/analysis"), Path("data/dataset")

Rng = np.random.Generator
Shape = Callable[[Rng, int, int], np.ndarray]


def rare(rng: Rng, women: int, latents: int) -> np.ndarray:
    """One woman in ten far above 0, nine a little below it: mean 0, standard deviation 1."""
    far = rng.random((women, latents)) < 0.1
    return (np.where(far, 3.0, -1 / 3) + 0.3 * rng.normal(size=far.shape)) / np.sqrt(1.09)


def one_in_ten(rng: Rng, women: int, latents: int) -> np.ndarray:
    """One woman in ten carries everything, above or below 0."""
    return rng.normal(size=(women, latents)) * (rng.random((women, latents)) < 0.1) * np.sqrt(10)


def sparse(rng: Rng, women: int, latents: int) -> np.ndarray:
    return rng.normal(size=(women, latents)) * (rng.random((women, latents)) < 0.05) * np.sqrt(20)


def correlated(rng: Rng, women: int, latents: int) -> np.ndarray:
    common = rng.normal(size=(women, 5)) @ rng.normal(size=(5, latents)) / np.sqrt(5)
    return (common + rng.normal(size=(women, latents))) / np.sqrt(2)


def lognormal(rng: Rng, women: int, latents: int) -> np.ndarray:
    return (rng.lognormal(size=(women, latents)) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)


def unequal_women(rng: Rng, women: int, latents: int) -> np.ndarray:
    return rng.normal(size=(women, latents)) * np.exp(rng.normal(size=(women, 1)) - 1)


def half_sparse(rng: Rng, women: int, latents: int) -> np.ndarray:
    found = rng.normal(size=(women, latents))
    found[:, latents // 2 :] = sparse(rng, women, latents - latents // 2)
    return found


def few_skewed(rng: Rng, women: int, latents: int) -> np.ndarray:
    """Normal latents; one in twenty has rare strong help and frequent weak harm instead."""
    found = rng.normal(size=(women, latents))
    found[:, : latents // 20] = -rare(rng, women, latents // 20)
    return found


SHAPES: dict[str, Shape] = {
    "normal": lambda rng, *shape: rng.normal(size=shape),
    "t, 3 degrees of freedom": lambda rng, *shape: rng.standard_t(3, size=shape) / np.sqrt(3),
    "unequal women": unequal_women,
    "correlated latents": correlated,
    "95 % zeros": sparse,
    "one woman in ten carries all": one_in_ten,
    "half normal, half 95 % zeros": half_sparse,
    "exponential, tail of harm": lambda rng, *shape: rng.exponential(size=shape) - 1,
    "exponential, tail of help": lambda rng, *shape: 1 - rng.exponential(size=shape),
    "lognormal, tail of harm": lognormal,
    "lognormal, tail of help": lambda rng, *shape: -lognormal(rng, *shape),
    "rare strong harm, frequent weak help": rare,
    "rare strong help, frequent weak harm": lambda rng, *shape: -rare(rng, *shape),
    "the same in one latent of twenty, others normal": few_skewed,
    "the same, the same women in all latents": lambda rng, women, latents: np.tile(-rare(rng, women, 1), latents),
}


def draw(rng: Rng, shape: Shape, women: int, latents: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the pairs of each woman [woman, latent], and the numbers of pairs."""
    counts = rng.integers(*PAIRS, size=women)
    within = WITHIN * rng.normal(size=(women, latents)) / np.sqrt(counts)[:, None]
    return counts[:, None] * SD * (shape(rng, women, latents) + within), counts


def flips(sums: np.ndarray, signs: np.ndarray, two_sided: bool = False) -> np.ndarray:
    """Family-wise p of max-T by sign flips."""
    norm = np.sqrt(np.square(sums).sum(0))
    scaled = np.divide(sums, norm, out=np.zeros_like(sums), where=norm > 0)
    observed, flipped = scaled.sum(0), signs @ scaled
    if two_sided:
        observed, flipped = np.abs(observed), np.abs(flipped)
    largest = np.sort(flipped.max(1))
    return (1 + len(largest) - np.searchsorted(largest, observed - 1e-9)) / (1 + len(largest))


class Family:
    """One replicate: the sums and counts of its women, and the resamples that all rules share."""

    def __init__(self, rng: Rng, sums: np.ndarray, counts: np.ndarray):
        self.sums, self.counts = sums, counts
        self.means, self.errors = means_and_errors(sums, counts)
        self.shifted = sums - MIN_EFFECT * counts[:, None]
        self.signs = rng.integers(0, 2, size=(N_RESAMPLES, len(counts))) * 2.0 - 1.0
        self.seed = int(rng.integers(2**31))
        self.weights = resample_women(len(counts), N_RESAMPLES, self.seed)
        self.acts = np.abs(sums).sum(0) / counts.sum() >= MIN_EFFECT

    def among(self, kept: np.ndarray, test: Callable[[np.ndarray], np.ndarray], sums: np.ndarray) -> np.ndarray:
        p = np.ones(sums.shape[1])
        if kept.any():
            p[kept] = test(sums[:, kept])
        return np.where(self.means > MIN_EFFECT, p, 1.0)

    def flips_interval(self) -> np.ndarray:
        p = np.where(self.means > MIN_EFFECT, flips(self.sums, self.signs, two_sided=True), 1.0)
        for j in np.flatnonzero(p <= max(LEVELS)):
            resampled = self.weights @ self.sums[:, j] / (self.weights @ self.counts)
            p[j] = p[j] if np.quantile(resampled, 0.025) > MIN_EFFECT else 1.0
        return p

    def halves(self) -> np.ndarray:
        half = len(self.counts) // 2
        means, errors = means_and_errors(self.shifted[:half], self.counts[:half])
        best = np.argsort(-np.divide(means, errors, out=np.full_like(means, -np.inf), where=errors > 0))[:N_KEPT]
        p = np.ones(len(self.means))
        p[best] = flips(self.shifted[half:, best], self.signs[:, half:])
        return p

    def _step_down(self, sums: np.ndarray) -> np.ndarray:
        return step_down(sums, self.counts, self.weights)

    @cached_property
    def p_at_any_level(self) -> dict[str, np.ndarray]:
        def flip(sums: np.ndarray) -> np.ndarray:
            return flips(sums, self.signs)

        return {
            "flips, interval": self.flips_interval(),
            "flips, harm": self.among(self.acts, flip, self.sums),
            "flips, shifted": self.among(self.acts, flip, self.shifted),
            "halves": self.halves(),
            "bootstrap": self.among(self.acts, self._step_down, self.sums),
        }

    def p_by_rule(self, level: float) -> dict[str, np.ndarray]:
        family, enough = in_family(self.sums, self.counts, level, MIN_EFFECT), nameable(self.sums, level)
        return {
            **self.p_at_any_level,
            "harm_p": np.where(enough, self.among(family, self._step_down, self.sums), 1.0),
            "harm_p, shifted": np.where(enough, self.among(family, self._step_down, self.shifted), 1.0),
        }


def percent(share: float, n: int) -> str:
    """A share in percent, with its Monte Carlo standard error."""
    return f"{100 * share:.1f} ± {100 * np.sqrt(share * (1 - share) / n):.1f}"


def average(replicates: Iterator[Family], score: Callable[[np.ndarray], float]) -> dict[str, list[float]]:
    """For each rule, the mean over replicates of a score of the named latents (True or False for each), by level."""
    scores: dict[str, list] = {}
    for family in replicates:
        for level in LEVELS:
            for rule, p in family.p_by_rule(level).items():
                scores.setdefault(rule, [[] for _ in LEVELS])[LEVELS.index(level)].append(score(p <= level))
    return {rule: [float(np.mean(values)) for values in by_level] for rule, by_level in scores.items()}


def errors(replicates: Iterator[Family], n: int) -> list[str]:
    """For each rule, the share of replicates in which it names any latent."""
    return [" / ".join(percent(share, n) for share in by_level) for by_level in average(replicates, np.any).values()]


def found(replicates: Iterator[Family]) -> list[str]:
    """For each rule, the share of harmful latents (the first five) that it names."""
    shares = average(replicates, lambda named: named[:N_HARMFUL].mean())
    return [" / ".join(f"{100 * share:.0f}" for share in by_level) for by_level in shares.values()]


def numbers(replicates: Iterator[Family]) -> list[str]:
    """For each rule, the mean number of latents that it names."""
    return [" / ".join(f"{mean:.1f}" for mean in by_level) for by_level in average(replicates, np.sum).values()]


def null_families(shape: Shape, women: int, latents: int, n: int) -> Iterator[Family]:
    for seed in range(n):
        rng = np.random.default_rng([seed, 0])
        yield Family(rng, *draw(rng, shape, women, latents))


def harmful_families(shape: Shape, shift: float, women: int, latents: int, n: int) -> Iterator[Family]:
    for seed in range(n):
        rng = np.random.default_rng([seed, 1])
        sums, counts = draw(rng, shape, women, latents)
        sums[:, :N_HARMFUL] += shift * SD * counts[:, None]
        yield Family(rng, sums, counts)


def own_gaps() -> list[tuple[np.ndarray, np.ndarray]]:
    """Sums and counts of the effect gaps on discovery women of a finished run, for each SAE (none without a run)."""
    from stages.core.data import dataset
    from stages.core.latents.pooling import PooledLatents
    from stages.core.paired import Pairs

    folders = sorted(path for path in ANALYSIS.glob("*") if (path / "pooled.zarr").exists())
    if not folders:
        return []
    data = dataset.load(DATASET)
    pairs = Pairs.from_images(data.table, "discovery")
    here = pairs.positions(data.audit_rows())
    pooled = [PooledLatents.load(folder / "pooled.zarr").effect[here].astype(np.float64) for folder in folders]
    return [by_cluster(pairs.gap(effect, axis=0), pairs.women) for effect in pooled]


def own_families(gaps: list, women: int, n: int, kind: str) -> Iterator[Family]:
    """Women of a finished run, of one SAE after the other.

    kind: `centred` resamples women after the mean of each latent is subtracted, and turns all signs in half of the
        replicates; `flipped` turns the signs of each woman at random; `as found` draws women without replacement.
    """
    for seed in range(n):
        rng = np.random.default_rng([seed, 2])
        sums, counts = gaps[seed % len(gaps)]
        if kind == "centred":
            drawn = rng.integers(len(counts), size=women)
            centred = sums - np.outer(counts, sums.sum(0) / counts.sum())
            yield Family(rng, centred[drawn] * rng.choice([-1, 1]), counts[drawn])
        else:
            drawn = rng.permutation(len(counts))[:women]
            turned = rng.choice([-1, 1], size=(len(drawn), 1)) if kind == "flipped" else 1
            yield Family(rng, sums[drawn] * turned, counts[drawn])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--women", type=int, nargs="+", default=[12, 20, 40])
    parser.add_argument("--latents", type=int, default=500)
    parser.add_argument("--replicates", type=int, default=300)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, help="the errors of these shapes alone, and no power")
    args = parser.parse_args()
    n, gaps = args.replicates, own_gaps()
    rules = list(next(null_families(SHAPES["normal"], 12, 9, 1)).p_by_rule(LEVELS[0]))
    chosen = {name: SHAPES[name] for name in args.shapes or SHAPES}
    for women in args.women:
        print(f"\n{women} women, {args.latents} latents, {n} replicates. Error in percent, at {LEVELS}:\n")
        rows = [[name, *errors(null_families(shape, women, args.latents, n), n)] for name, shape in chosen.items()]
        for kind in ("centred", "flipped") if gaps and not args.shapes else ():
            rows.append([f"default run, {kind}", *errors(own_families(gaps, women, n, kind), n)])
        print(markdown(["no latent harms", *rules], rows), flush=True)
        if not args.shapes:
            print_power(rules, gaps, women, args.latents, max(1, n // 5))


def print_power(rules: list[str], gaps: list, women: int, latents: int, n: int) -> None:
    print(f"\n{women} women, {latents} latents, {n} replicates. Percent of the harmful latents named:\n")
    rows = [
        [f"{name}, mean of {shift:g} SD", *found(harmful_families(SHAPES[name], shift, women, latents, n))]
        for name in ("normal", "half normal, half 95 % zeros", "exponential, tail of harm")
        for shift in SHIFTS
    ]
    if gaps:
        rows.append(["default run: latents named", *numbers(own_families(gaps, women, n, "as found"))])
    print(markdown(["five latents harm", *rules], rows), flush=True)


if __name__ == "__main__":
    main()

"""How often pure noise is said to encode a label, and how often a latent that a label acts on is found.

    python -m tests.bench.labels_encoded [--latents 1000] [--power-latents 100]

An audit set has some women with a pair of images for each emotion. Each woman has an intensity and a colour for each
pair, drawn at random, where the set has such labels. A latent of noise has independent activations on all images; its
three poolings are independent, too. Rules:

    before    the label with the largest eta^2 from .1 on, the largest of three poolings; labels as they were then
              (condition, emotion, colour)
    now       `label_association.encoded`: epsilon^2 from .1 on, and a permutation p
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import pandas as pd

from stages.core.description.label_association import LEAST, NONE, encoded, judged_on, variance_explained
from stages.core.latents.pooling import POOLINGS, PooledLatents
from stages.core.run.labels import CONDITIONS
from tests.bench.table import markdown

Rng = np.random.Generator
SETS = {  # women, emotions, and whether the images have intensities and colours
    "5 women, 7 emotions: 70 images": (5, 7, False),
    "5 women, 7 emotions, with intensity and colour": (5, 7, True),
    "10 women, 7 emotions: 140 images": (10, 7, False),
    "10 women, 7 emotions, with intensity and colour": (10, 7, True),
    "40 women, 4 emotions: 320 images": (40, 4, True),
}
KINDS: dict[str, Callable[[Rng, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape),
    "exponential, 90 % zeros": lambda rng, shape: rng.exponential(size=shape) * (rng.random(shape) < 0.1),
    "twins alike": lambda rng, shape: (
        np.tile(rng.normal(size=(shape[0] // 2, *shape[1:])), (2, *(1 for _ in shape[1:])))
        + 0.3 * rng.normal(size=shape)
    ),
}
OLD_LABELS = ("condition", "emotion", "colour")
SHIFTS = (0.5, 1.0, 1.5, 2.0)
N_POOLINGS = len(POOLINGS)


def audit_images(women: int, emotions: int, more: bool = False, seed: int = 0) -> pd.DataFrame:
    """The labels of an audit set: all semi-nude images, then their twins."""
    rng = np.random.default_rng(seed)
    names = np.repeat([f"woman{i:03}" for i in range(women)], emotions)
    pairs = pd.DataFrame({"pair": np.arange(len(names)), "identity": names})
    pairs["emotion"] = [f"emotion{i}" for i in range(emotions)] * women
    if more:
        pairs["intensity"] = rng.choice(["weak", "strong"], len(pairs))
        pairs["colour"] = rng.choice(["red", "blue", "gold", "green"], len(pairs))
    return pd.concat([pairs.assign(condition=condition) for condition in CONDITIONS], ignore_index=True)


def pooled_latents(values: np.ndarray) -> PooledLatents:
    """From activations [image, latent, pooling]."""
    poolings = dict(zip(POOLINGS, np.moveaxis(values, -1, 0), strict=True))
    return PooledLatents(**poolings, effect=np.zeros_like(values[..., 0]), firing=np.zeros(values.shape[1]))


def noise(rng: Rng, images: pd.DataFrame, n: int, kind: str) -> PooledLatents:
    return pooled_latents(KINDS[kind](rng, (len(images), n, N_POOLINGS)))


def before(pooled: PooledLatents, images: pd.DataFrame) -> np.ndarray:
    """The largest eta^2 of any label and pooling, by latent."""
    return np.max(
        [
            eta2(getattr(pooled, pooling)[on], images.loc[on, label].to_numpy())
            for label in OLD_LABELS
            if label in images
            for on in [judged_on(images, label)]
            for pooling in POOLINGS
        ],
        axis=0,
    )


def eta2(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    n, k = len(values), len(np.unique(labels))
    return 1 - (1 - variance_explained(values, labels)) * (n - k) / (n - 1)


def named(pooled: PooledLatents, images: pd.DataFrame) -> dict[str, float]:
    """Share of the latents that encode any label, by rule."""
    now = encoded(pooled, images, np.arange(pooled.cls.shape[1]))["encodes"] != NONE
    return {"before": float((before(pooled, images) >= LEAST).mean()), "now": float(now.mean())}


def planted(rng: Rng, images: pd.DataFrame, n: int, label: str, shift: float) -> PooledLatents:
    """One pooling (mean) is higher by `shift` standard deviations on the images with one value of the label."""
    values = rng.normal(size=(len(images), n, N_POOLINGS))
    given = images[label] == sorted(images[label])[-1]
    values[..., POOLINGS.index("mean")] += shift * given.to_numpy()[:, None]
    return pooled_latents(values)


def found(pooled: PooledLatents, images: pd.DataFrame, label: str) -> tuple[float, float]:
    """Share of the latents that encode the label, and share that encode another one."""
    names = encoded(pooled, images, np.arange(pooled.cls.shape[1]))["encodes"]
    return float((names == label).mean()), float((~names.isin([label, NONE])).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=1000)
    parser.add_argument("--power-latents", type=int, default=100)
    args = parser.parse_args()
    rows = []
    for name, (women, emotions, more) in SETS.items():
        images = audit_images(women, emotions, more)
        for kind in KINDS:
            shares = named(noise(np.random.default_rng(1), images, args.latents, kind), images)
            rows.append([name, kind, *(f"{100 * share:.1f}" for share in shares.values())])
    print(markdown(["noise", "kind", "before", "now"], rows), flush=True)
    rows = []
    for name, (women, emotions, more) in SETS.items():
        images = audit_images(women, emotions, more)
        for label in [label for label in ("condition", "emotion", "colour", "identity") if label in images]:
            cells = [
                found(planted(np.random.default_rng(2), images, args.power_latents, label, shift), images, label)
                for shift in SHIFTS
            ]
            rows.append([name, label, *(f"{100 * right:.0f} ({100 * wrong:.0f})" for right, wrong in cells)])
    print(markdown(["planted in", "label", *(f"{shift:g} SD" for shift in SHIFTS)], rows), flush=True)


if __name__ == "__main__":
    main()

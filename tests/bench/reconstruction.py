"""How well pictures come back from what stays and from what is shared, by an attacker with the model and other images.

    python -m tests.bench.reconstruction [--study FOLDER]      # a finished default study; after `make repro`, this one

The attacker has the CLIP, and images of his own, which show other women. He fits ridge regressions from what he can
compute on his images to their pixels, and applies them to what he got of the study. Whole pictures are compared at
32 x 32 pixels, mosaics of patches at full size.

R2        share of the pixels' variance around the attacker's mean picture that a picture explains; 0 is the mean
          picture, 1 the image itself
matched   share of images of the study whose picture is nearer to the image than to any other; chance is 1 / images

What is shared has no row per image, so the attacker cannot tell which image a picture should show. Each attack on an
SAE therefore gives a set of pictures, and the truth helps: for every image the best picture of the set is taken. Any
set has pictures that resemble some image. So two SAEs are trained, each on its own half of the study, and attacked in
the same way:

gain      R2 of the best picture from the SAE that was trained on the image, minus that from the other SAE
told      share of images for which the first is larger; chance is one half

Pictures are not the only thing to lose. `known` asks less: the attacker already has a photograph, and asks the SAE
whether it was trained on it. He compares reconstruction errors (fraction of variance unexplained): the table gives the
area under the ROC curve, one half by chance, for the photograph itself, and for other photographs of the same women.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor
from torch.nn.functional import one_hot

from stages.core import eclip
from stages.core.clip import vit
from stages.core.clip.readout import Readout
from stages.core.clip.vit import FrozenClip
from stages.core.data import dataset
from stages.core.planted import world
from stages.core.sae import JumpReLUSAE
from stages.core.schema import Compute
from stages.core.training import TrainConfig, train
from tests.bench.attacks import (
    AT_ONCE,
    ON_LATENTS,
    SEARCH,
    Attack,
    Attacker,
    Seen,
    attacks,
    look,
    matched,
    share_of_diagonal,
    shrunk,
)
from tests.bench.table import markdown
from tests.imports import ROOT

N_TOP = 4  # images named per latent, as in stages/analyse_sae.py
N_EDITED = 20  # latents in data/mitigated

EXPRESSIONS = world.Expressions(("happy", "sad", "angry", "surprised"))


def draw(portraits: Sequence[world.Portrait], side: int) -> np.ndarray:
    return np.stack([world.render(portrait, side)[0] for portrait in portraits])


def wide_clip(width: int, layers: int, side: int, patch: int) -> FrozenClip:
    """A tower with random weights: its tokens keep what the pictures hold."""
    import open_clip
    from open_clip.model import CLIP

    torch.manual_seed(0)
    vision = {"image_size": side, "patch_size": patch, "width": width, "layers": layers, "head_width": 64}
    text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    return FrozenClip(
        CLIP(64, vision, text).eval(), open_clip.SimpleTokenizer(context_length=16), (0.5,) * 3, (0.5,) * 3
    )


def auc(high: np.ndarray, low: np.ndarray) -> float:
    """Probability that a value of the first set is larger than one of the second."""
    return float(mannwhitneyu(high, low).statistic / len(high) / len(low))


@torch.no_grad()
def pooled(sae: JumpReLUSAE, tokens: Tensor) -> Tensor:
    """What pooled.zarr holds of each image, less the effect: [n, 3 latents]."""
    parts = []
    for x in tokens.split(10):
        f = sae.encode(x)
        parts.append(torch.cat([f[:, 0], f[:, 1:].mean(1), f[:, 1:].amax(1)], dim=1))
    return torch.cat(parts)


def named_by(activation: Tensor) -> Tensor:
    """For each image [n, latent] whether a latent names it among the N_TOP images that activate it most."""
    top = activation.topk(N_TOP, dim=0).indices
    named = torch.zeros_like(activation).scatter_(0, top, 1.0)
    return named * (activation > 0)


def linked_by_names(activation: Tensor) -> float:
    """Share of images that an attacker finds among photographs he has, from the latents that name each image.

    He computes the activations of the photographs himself: that image is meant on which these latents are strongest.
    """
    named = named_by(activation)
    z = (activation - activation.mean(0)) / activation.std(0).clamp_min(1e-9)
    return share_of_diagonal(-(named @ z.T) / named.sum(1, keepdim=True).clamp_min(1))


@torch.no_grad()
def fvu(attacker: Attacker, sae: JumpReLUSAE, tokens: Tensor) -> np.ndarray:
    """The error of the SAE on each image, as a fraction of variance."""
    errors = [(x - sae(x)).square().sum() / (x - attacker.mean_token).square().sum() for x in tokens]
    return torch.stack(errors).numpy()


def part_of(sae: JumpReLUSAE, n_latents: int) -> JumpReLUSAE:
    """The first latents alone, which are as good as any before an edit is chosen."""
    part = JumpReLUSAE(sae.d_in, n_latents)
    part.W_enc.data, part.W_dec.data, part.b_dec.data = sae.W_enc[:, :n_latents], sae.W_dec[:n_latents], sae.b_dec
    part.b_enc.data, part.threshold.data = sae.b_enc[:n_latents], sae.threshold[:n_latents]
    return part.requires_grad_(False)


@dataclass(frozen=True)
class Gain:
    """What an SAE gives away of the images it was trained on, beside an SAE that never saw them."""

    trained: float
    untrained: float
    error: float
    """Twice the standard error of the gain, over images."""
    told: float

    @property
    def gain(self) -> float:
        return self.trained - self.untrained


def gain(attack: Attack, saes: Sequence[JumpReLUSAE], halves: Sequence[Seen]) -> Gain:
    """Attack two SAEs, each trained on one half of the images."""
    best = [attack(sae) for sae in saes]
    own = np.concatenate([best[k](halves[k]) for k in (0, 1)])
    other = np.concatenate([best[1 - k](halves[k]) for k in (0, 1)])
    error = 2 * float((own - other).std(ddof=1)) / len(own) ** 0.5
    told = float((own > other).mean() + (own == other).mean() / 2)
    return Gain(float(own.mean()), float(other.mean()), error, told)


@torch.no_grad()
def blind(attacker: Attacker, sae: JumpReLUSAE, half: Seen) -> dict[str, float]:
    """R2 of the one picture that a shared mean gives, for all images of the study.

    It is 0 for the attacker's mean picture, and largest for the mean picture of the study, the last entry.
    """
    f = torch.stack([sae.encode(x) for x in half.tokens])
    n = attacker.grid**2
    patch, first = sae.decode(f[:, 1:].mean((0, 1))), sae.decode(f[:, 0].mean(0))
    found = {
        "decoder bias, at each patch": shrunk(attacker.pictures(sae.b_dec.expand(1, n, -1))),
        "mean latents of patches, decoded": shrunk(attacker.pictures(patch.expand(1, n, -1))),
        "mean latents of class tokens, decoded": attacker.to_whole(first[None]).reshape(1, *attacker.small_mean.shape),
        "the mean picture of the study": half.small.mean(0, keepdim=True),
    }
    return {name: attacker.r2(picture.expand_as(half.small), half.small) for name, picture in found.items()}


def known(attacker: Attacker, sae: JumpReLUSAE, seen: Tensor, strangers: Tensor) -> float:
    """How well the reconstruction error tells images the SAE was trained on, or the same women, from strangers."""
    return auc(-fvu(attacker, sae, seen), -fvu(attacker, sae, strangers))


def trained_on(half: Seen, d_sae: int, steps: int, batch: int) -> JumpReLUSAE:
    return train(half.tokens.flatten(0, 1), TrainConfig(d_sae=d_sae, steps=steps, batch_size=batch))[0]


@dataclass(frozen=True)
class World:
    """Two groups of women, and the attacker's. Each woman of the groups has four pairs; two pairs are for training.

    halves: images of the first two pairs, of each group. others: images of the other pairs of the same women.
    """

    attacker: Attacker
    halves: list[Seen]
    others: list[Seen]


def make_world(clip: FrozenClip, layer: int, n_women: int, n_public: int) -> World:
    rng = np.random.default_rng(7)
    own = look(clip, layer, draw(world.sample_portraits(n_public, EXPRESSIONS, rng), clip.image_size))
    halves, others = [], []
    for _ in range(2):
        pairs = world.audit_pairs(n_women, EXPRESSIONS, rng)
        for group, places in ((halves, (0, 1)), (others, (2, 3))):
            chosen = [pair for i, pair in enumerate(pairs) if i % len(EXPRESSIONS.emotions) in places]
            twins = [twin for pair in chosen for twin in (pair.semi_nude, pair.clothed)]
            group.append(look(clip, layer, draw(twins, clip.image_size)))
    return World(Attacker(own, clip.grid[0]), halves, others)


def of_rows(made: World, sae: JumpReLUSAE) -> dict[str, tuple[float, float]]:
    """What stays, because it has a row per image: R2 and share matched, of the images of the first half."""
    attacker, half = made.attacker, made.halves[0]
    pictures = attacker.pictures(half.tokens[:, 1:])
    codes, own_codes = pooled(sae, half.tokens), pooled(sae, attacker.own.tokens)
    mean = slice(sae.d_sae, 2 * sae.d_sae)
    own_named = torch.cat([named_by(group) for group in own_codes[:, mean].split(len(half))])
    r2, _ = attacker.rows(own_named, named_by(codes[:, mean]), half)
    return {
        "activations": (attacker.r2(pictures, half.pixels), matched(pictures, half.pixels)),
        "pooled latents": attacker.rows(own_codes, codes, half),
        f"{N_TOP} images named per latent": (r2, linked_by_names(codes[:, mean])),
    }


def of_outcomes(made: World, clip: FrozenClip) -> dict[str, tuple[float, float]]:
    """The same of heatmaps, and of tables by image: the emotion that CLIP names, and R of one emotion.

    Matched by the table means: the attacker has photographs, and computes R of each himself, one by one.
    """
    half, own = made.halves[0], made.attacker.own
    maps, own_maps = (grad_eclip(clip, seen.pixels) for seen in (half, own))
    outcomes, own_outcomes = (emotions(clip, seen.pixels, AT_ONCE) for seen in (half, own))
    again = emotions(clip, half.pixels, 1)
    r2, _ = made.attacker.rows(tabled(own_outcomes), tabled(outcomes), half)
    return {
        "heatmaps": made.attacker.rows(own_maps, maps, half),
        "tables by image": (r2, share_of_diagonal((outcomes[:, :1] - again[:, 0]).abs())),
    }


def emotions(clip: FrozenClip, pixels: Tensor, at_once: int) -> Tensor:
    """Log-probability of each emotion: [n, emotion]."""
    readout = Readout.from_prompts(clip, [[world.caption(e, "", "clothed", 0)] for e in EXPRESSIONS.emotions])
    with torch.no_grad():
        return torch.cat(
            [readout.log_probabilities(clip.embed(clip.pixels(part))) for part in pictures(pixels, at_once)]
        )


def tabled(log_probabilities: Tensor) -> Tensor:
    """What a table says of an image: R, and the emotion named."""
    return torch.cat([log_probabilities[:, :1], one_hot(log_probabilities.argmax(1), len(EXPRESSIONS.emotions))], dim=1)


def pictures(pixels: Tensor, at_once: int) -> Iterator[np.ndarray]:
    """The same as bytes, some at a time."""
    return (part.numpy() for part in (pixels * 255).round().to(torch.uint8).split(at_once))


def grad_eclip(clip: FrozenClip, pixels: Tensor) -> Tensor:
    """Raw Grad-ECLIP map of each image, for one text."""
    text = clip.text(["a happy woman"])
    found = [
        eclip.explain(clip.model, clip.pixels(part), text.expand(len(part), -1)[None]).raw["grad_eclip"][:, 0]
        for part in pictures(pixels, AT_ONCE)
    ]
    return torch.cat(found)


@dataclass(frozen=True)
class Trial:
    """Women in each half of the study, images of the attacker, and the training of the SAEs."""

    n_women: int
    n_public: int
    d_sae: int
    steps: int
    batch: int


def tell(clip: FrozenClip, layer: int, trial: Trial, *, trained_clip: bool) -> None:
    """Make both halves and their SAEs, attack them, and print the tables.

    trained_clip: whether heatmaps and named emotions mean something, and pictures are searched for (a wide tower takes
        too long).
    """
    made = make_world(clip, layer, trial.n_women, trial.n_public)
    saes = [trained_on(half, trial.d_sae, trial.steps, trial.batch) for half in made.halves]
    n = len(made.halves[0])
    print(f"\n{n} images of {trial.n_women} women in each half; {trial.d_sae:,} latents, {trial.steps} steps\n")
    rows = of_rows(made, saes[0]) | (of_outcomes(made, clip) if trained_clip else {})
    shown = [(name, f"{r2:.3f}", f"{share:.3f}", f"{1 / n:.3f}") for name, (r2, share) in rows.items()]
    print(markdown(("stays", "R2", "matched", "chance"), shown), "\n")
    means = blind(made.attacker, saes[0], made.halves[0])
    print(markdown(("one picture for all images", "R2"), [(k, f"{v:.3f}") for k, v in means.items()]), "\n")
    tried = attacks(made.attacker, clip, layer)
    if not trained_clip:
        del tried[SEARCH]
    print(
        markdown(("shared", "R2, trained on it", "R2, never saw it", "gain", "told"), shared(made, saes, tried)), "\n"
    )
    itself, women = (told_apart(made, saes, itself=itself) for itself in (True, False))
    print(f"known: the photograph itself {itself:.2f}, others of the same women {women:.2f}", flush=True)


def shared(made: World, saes: Sequence[JumpReLUSAE], tried: dict[str, Attack]) -> Iterator[tuple[str, ...]]:
    """Rows of the table of attacks: on whole SAEs, and on as few latents as the mended model holds."""
    for name, attack in tried.items():
        for what, parts in (("SAE", saes), (f"{N_EDITED} latents", [part_of(sae, N_EDITED) for sae in saes])):
            if what == "SAE" or name in ON_LATENTS:
                g = gain(attack, parts, made.halves)
                cells = (f"{g.trained:.3f}", f"{g.untrained:.3f}", f"{g.gain:+.3f} ± {g.error:.3f}", f"{g.told:.2f}")
                yield (f"{what}: {name}", *cells)


def told_apart(made: World, saes: Sequence[JumpReLUSAE], *, itself: bool) -> float:
    """`known` of both SAEs: of the images they were trained on, or of others of the same women."""
    seen = made.halves if itself else made.others
    return float(np.mean([known(made.attacker, saes[k], seen[k].tokens, made.others[1 - k].tokens) for k in (0, 1)]))


def tell_numbers_of_women() -> None:
    """What an SAE gives away if it was trained on few women: a small tower with random weights, each attack in turn."""
    clip, shown = wide_clip(128, 2, 32, 8), []
    for n_women, steps in ((6, 120), (10, 240), (20, 400), (70, 1000)):
        made = make_world(clip, 2, n_women, 150)
        saes = [trained_on(half, 1024, steps, 256) for half in made.halves]
        tried = attacks(made.attacker, clip, 2)
        gains = [gain(tried[name], saes, made.halves) for name in (*ON_LATENTS, SEARCH)]
        cells = [f"{g.gain:+.3f} ± {g.error:.3f}" for g in gains]
        apart = [f"{told_apart(made, saes, itself=itself):.2f}" for itself in (True, False)]
        shown.append((f"{n_women} women, {len(made.halves[0])} images", *cells, *apart))
    head = ("trained on", *(f"gain: {name}" for name in (*ON_LATENTS, SEARCH)), "known", "known, same women")
    print(markdown(head, shown), flush=True)


def tell_default(clip: FrozenClip, layer: int, study: Path) -> None:
    """How well the SAEs of the default study, trained on many other images too, tell discovery from other women."""
    data = dataset.load(study / "data" / "dataset")
    attacker = Attacker(
        look(clip, layer, draw(world.sample_portraits(200, EXPRESSIONS, np.random.default_rng(7)), 64)), clip.grid[0]
    )
    seen, strangers = (look(clip, layer, data.images(data.rows(s))).tokens for s in ("discovery", "confirmation"))
    for fpath in sorted((study / "data" / "sae").glob(f"l{layer}_*")):
        sae = JumpReLUSAE.load(fpath)
        print(f"known, default study, {fpath.name}: {known(attacker, sae, seen, strangers):.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=ROOT, help="folder of a finished default study")
    study = parser.parse_args().study
    clip = vit.load(study / "data" / "clip", Compute(device="cpu", precision="float32", threads=1))
    print("## Numbers of women\n")
    tell_numbers_of_women()
    print("\n## The planted world\n")
    tell_default(clip, clip.n_layers, study)
    tell(clip, clip.n_layers, Trial(40, 600, 1024, 400, 512), trained_clip=True)
    print("\n## A tower as wide as ViT-L/14, with random weights")
    tell(wide_clip(1024, 2, 224, 14), 2, Trial(20, 60, 2048, 150, 512), trained_clip=False)


if __name__ == "__main__":
    main()

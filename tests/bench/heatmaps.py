"""What heatmaps and the control cloud cost beside the forward passes below them.

    python -m tests.bench.heatmaps [--rounds 7] [--threads 2]

Three pairs, each in turns of one call, round after round; the table gives medians over the rounds.

    maps          a batch's Grad-ECLIP maps / the bare forward pass of the batch (ViT-B-32, random weights)
    texts         maps for 8 texts per image / for one
    controls      200 control sets on a batch, spliced in after block 22 / the blocks after it alone, 200 times
                  (ViT-L-14, random weights, 24 of 8,192 latents in a set)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch.nn.functional import normalize

from stages.core import eclip
from stages.core.clip.vit import FrozenClip
from stages.core.latents import error_kept_edits
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.sae import JumpReLUSAE
from tests.bench.table import markdown

N_TEXTS = 8
N_SETS, N_LATENTS, EXPANSION, LAYER = 200, 24, 8, 22
COLUMNS = ("what", "beside", "seconds", "its seconds", "time, ×")


def clip(architecture: str) -> FrozenClip:
    """A randomly initialised model."""
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model(architecture, pretrained=None)
    return FrozenClip(model, open_clip.get_tokenizer(architecture), (0.5,) * 3, (0.5,) * 3)


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turns(first: Callable[[], Any], second: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Median seconds of both, after one call of each that does not count."""
    found = [(seconds(first), seconds(second)) for _ in range(rounds + 1)][1:]
    return median(a for a, _ in found), median(b for _, b in found)


def maps_and_texts(rounds: int, batch: int) -> list[tuple[str, ...]]:
    """Rows of the table for heatmaps."""
    model = clip("ViT-B-32")
    pixels = torch.randn(batch, 3, model.image_size, model.image_size)
    texts = normalize(torch.randn(N_TEXTS, batch, model.model.text_projection.shape[1]), dim=-1)

    @torch.no_grad()
    def forward() -> None:
        model.embed(pixels)

    one, all_of_them = (partial(eclip.explain, model.model, pixels, wanted) for wanted in (texts[:1], texts))
    return [
        row(f"maps of {batch} images", "bare forward pass", in_turns(one, forward, rounds)),
        row(f"maps for {N_TEXTS} texts", "for one text", in_turns(all_of_them, one, rounds)),
    ]


@torch.no_grad()
def control_cloud(rounds: int, batch: int) -> list[tuple[str, ...]]:
    """The row of the table for the control sets."""
    model = clip("ViT-L-14")
    width, n_tokens = model.visual.transformer.width, model.grid[0] * model.grid[1] + 1
    sae = JumpReLUSAE(width, EXPANSION * width)
    for parameter in sae.parameters():
        torch.nn.init.normal_(parameter, std=width**-0.5)
    sae.requires_grad_(False)
    tokens = torch.randn(batch, n_tokens, width)
    sets = [LatentEdit(latents=torch.randperm(len(sae.W_dec))[:N_LATENTS]) for _ in range(N_SETS)]

    def controls() -> None:
        for edit in sets:
            model.tail(error_kept_edits.edited(tokens, sae, edit), LAYER)

    def blocks() -> None:
        for _ in sets:
            model.tail(tokens, LAYER)

    return [row(f"{N_SETS} control sets", f"blocks after {LAYER}, as often", in_turns(controls, blocks, rounds))]


def row(what: str, beside: str, found: tuple[float, float]) -> tuple[str, ...]:
    return what, beside, f"{found[0]:.3g}", f"{found[1]:.3g}", f"{found[0] / found[1]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(markdown(COLUMNS, [*maps_and_texts(given.rounds, given.batch), *control_cloud(3, 1)]))


if __name__ == "__main__":
    main()

"""Extraction beside the bare forward pass: images per second with three layers written to their stores.

    python -m tests.bench.extract [--rounds 5] [--threads 2]

Both run the same batches in the same precision, in turns; random weights. The bare pass has its pixels in memory; the
extraction reads them from the dataset, and ends when the last shard is in its place.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from stages import extract
from stages.core import store
from stages.core.data import dataset
from stages.core.run import labels
from tests.bench.heatmaps import clip, in_turns
from tests.bench.table import markdown

SIZES = (("ViT-B-32", 128, 32), ("ViT-L-14", 16, 8))
"""Architecture, images, batch."""
N_LAYERS = 3
COLUMNS = ("model", "images", "batch", "bare, s / image", "extraction, s / image", "images / s, × bare")


def pictures(directory: Path, n: int, side: int) -> dataset.Dataset:
    """Noise, as a dataset."""
    columns = ("image", "identity", "condition", "emotion", "split", "pair")
    rows = [
        (f"{split}_{condition}", split, condition, "sad", split, pair)
        for pair, split in enumerate(("discovery", "confirmation"))
        for condition in labels.CONDITIONS
    ]
    rows += [(f"c{i}", "", "", "", "corpus", -1) for i in range(n - len(rows))]
    images = np.random.default_rng(0).integers(0, 255, (n, side, side, 3), dtype=np.uint8)
    with dataset.create(directory, pd.DataFrame(rows, columns=list(columns)), side, {"sad": ["sad"]}) as append:
        append(images, *np.zeros((2, n, side, side), np.uint8))
    return dataset.load(directory)


def compare(architecture: str, n: int, batch: int, rounds: int, folder: Path) -> tuple[str, ...]:
    """A row of the table."""
    model = clip(architecture)
    data = pictures(folder / architecture, n, model.image_size)
    layers = range(model.n_layers - N_LAYERS + 1, model.n_layers + 1)
    n_tokens, width = model.grid[0] * model.grid[1] + 1, model.visual.transformer.width
    pixels = model.pixels(data.images(slice(None)))

    @torch.no_grad()
    def bare() -> None:
        for some in pixels.split(batch):
            model.embed(some)

    def extraction() -> None:
        with ExitStack() as stack:
            stores = {
                layer: stack.enter_context(
                    store.create(folder / f"l{layer}.zarr", n, n_tokens, width, shard_images=4 * batch)
                )
                for layer in layers
            }
            extract.extract(model, data, stores, batch)

    ours, floor = in_turns(extraction, bare, rounds)
    return architecture, str(n), str(batch), f"{floor / n:.4f}", f"{ours / n:.4f}", f"{floor / ours:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        rows = [compare(*size, rounds=given.rounds, folder=Path(folder)) for size in SIZES]
    print(markdown(COLUMNS, rows))


if __name__ == "__main__":
    main()

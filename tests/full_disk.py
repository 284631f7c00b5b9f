"""Outputs of every kind, written where they do not fit.

    unshare -rm sh -c 'mount -t tmpfs -o size=1m tmpfs FOLDER && python -m tests.full_disk FOLDER'

Prints JSON: of each kind its place, the exit status and what was said when it did not fit, and the files in the folder
before and after.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
import torch

from stages import heatmap
from stages.core import figures, store
from stages.core.data import dataset
from stages.core.latents.pooling import FIELDS, PooledLatents
from stages.core.run import outs
from stages.core.run.errors import run_command
from stages.core.sae import JumpReLUSAE
from stages.core.training.checkpoint import Checkpoint
from tests.soak.kill import snapshot

FITS, DOES_NOT = 2, 200  # of each output's units, on a disk of 1 MiB
FORK = multiprocessing.get_context("fork")  # so that all is imported once


def noise(*shape: int) -> np.ndarray:
    """What no compression makes smaller."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def write_dataset(place: Path, n: int) -> None:
    image = np.random.default_rng(0).integers(0, 255, (n, 64, 64, 3), dtype=np.uint8)
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(n)], "split": "corpus", "pair": -1})
    with dataset.create(place, table, 64, {"calm": ["a calm woman"]}) as append:
        append(image, image[..., 0], image[..., 1])


def write_store(place: Path, n: int) -> None:
    with store.create(place, n, 17, 128, shard_images=2) as new:
        new.append(noise(n, 17, 128))


def write_sae(place: Path, n: int) -> None:
    sae = JumpReLUSAE(64, 64 * n)
    sae.W_enc.data = torch.from_numpy(noise(*sae.W_enc.shape))
    with outs.atomic_output(place) as unfinished:
        sae.save(unfinished)


def write_codes(place: Path, n: int) -> None:
    with outs.atomic_output(place) as unfinished:
        PooledLatents(**{name: noise(n, 512) for name in FIELDS}, firing=noise(512)).save(unfinished / "pooled.zarr")


def write_heatmaps(place: Path, n: int) -> None:
    heatmap.save(place, np.arange(n), {"original": noise(n, 49, 49)}, {"original": noise(n)}, 12)


def write_metrics(place: Path, n: int) -> None:
    outs.write_metrics(place, {f"share_{i}": i / 7 for i in range(200 * n)})


def write_table(place: Path, n: int) -> None:
    outs.write_table(place, pd.DataFrame(noise(200 * n, 4)))


def write_png(place: Path, n: int) -> None:
    figure = figures.pyplot().figure(figsize=(6, 6))
    figure.figimage(np.random.default_rng(0).integers(0, 255, (3 * n, 600, 3), dtype=np.uint8))
    figures.save(figure, place)


def write_checkpoint(place: Path, n: int) -> None:
    with Checkpoint(place.parent) as kept:
        kept.save({"weights": torch.from_numpy(noise(n, 4096))})


WRITERS: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "dataset": ("data/dataset", write_dataset),
    "store": ("data/activations/l1.zarr", write_store),
    "sae": ("data/sae/l1_x1", write_sae),
    "codes": ("data/analysis/l1_x1", write_codes),
    "heatmaps": ("data/heatmaps.zarr", write_heatmaps),
    "metrics": ("metrics/ablate.json", write_metrics),
    "table": ("plots/ablate.csv", write_table),
    "png": ("plots/ablate.png", write_png),
    "checkpoint": ("train_sae/f00d/state.safetensors", write_checkpoint),
}


def attempt(write: Callable[[Path, int], None], place: Path, n: int) -> tuple[int | None, str]:
    """Exit status of a process that writes, and what it said on its way out."""

    def write_and_say(said: TextIO) -> None:
        sys.stderr = said
        run_command(lambda: write(place, n))

    with tempfile.TemporaryFile("w+") as said:
        process = FORK.Process(target=write_and_say, args=(said,))
        process.start()
        process.join()
        said.seek(0)
        return process.exitcode, said.read()


def try_all(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for kind, (name, write) in WRITERS.items():
        place = folder / kind / name
        place.parent.mkdir(parents=True)
        if any(first := attempt(write, place, FITS)):
            raise SystemExit(f"{kind}: what fits was not written: {first}")
        before = snapshot(folder / kind)
        code, said = attempt(write, place, DOES_NOT)
        after = snapshot(folder / kind)
        found[kind] = {"place": str(place), "code": code, "said": said, "before": before, "after": after}
        shutil.rmtree(folder / kind)
    return found


if __name__ == "__main__":
    print(json.dumps(try_all(Path(sys.argv[1]))))

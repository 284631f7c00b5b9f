"""What grows with the number of images, for tests/bench/scale.md.

    python -m tests.bench.scale [--gib 20] [--folder /a/large/disk]      # twice the store, and what ingest writes

Ingest: corpus photographs (JPEG, 640 pixels square) checked, read and written, seconds per image, one process.

A store larger than memory, beside plain files of the same bytes: written, then read as training from a stream reads.
Tokens are those of a ViT-L/14 (257 of width 1,024, float32). Store and plain files take turns of some shards; what is
written is on the disk before the turn ends, but for the one shard that the store writes while its caller computes. The
whole is larger than memory, so what is read comes from the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from PIL import Image

from stages import ingest
from stages.core import store
from stages.core.ingestion import manifest
from stages.core.run import labels, params
from stages.core.schema import Ingest
from tests.bench.table import markdown
from tests.imports import ROOT

N_TOKENS, WIDTH, SHARD_IMAGES = 257, 1024, 64
SHARD_BYTES = SHARD_IMAGES * N_TOKENS * WIDTH * 4
TURN = 8  # shards
COLUMNS = ("what", "plain files, MB / s", "store, MB / s", "store, × plain")
Seconds = tuple[list[float], list[float]]
"""Seconds of each turn with plain files, and with the store."""


def on_disk(fpath: Path) -> None:
    with fpath.open("rb") as file:
        os.fsync(file.fileno())


def write(folder: Path, n_turns: int) -> Seconds:
    """Fill both."""
    shard = np.random.default_rng(0).normal(size=(SHARD_IMAGES, N_TOKENS, WIDTH)).astype(np.float32)
    plain, ours = [], []
    n_images = n_turns * TURN * SHARD_IMAGES
    with store.create(folder / "l22.zarr", n_images, N_TOKENS, WIDTH, shard_images=SHARD_IMAGES) as new:
        for turn in range(n_turns):
            numbers = range(turn * TURN, (turn + 1) * TURN)
            start = time.perf_counter()
            for number in numbers:
                shard.tofile(folder / f"{number}.bin")
                on_disk(folder / f"{number}.bin")
            middle = time.perf_counter()
            for number in numbers:
                new.append(shard)
                if number:
                    on_disk(folder / ".part.l22.zarr" / "tokens" / "c" / str(number - 1) / "0" / "0")
            plain.append(middle - start)
            ours.append(time.perf_counter() - middle)
    return plain, ours


def read(folder: Path, n_turns: int) -> Seconds:
    """Read both, from the first shard on: what was written last is still in the machine's cache."""
    opened = store.open(folder / "l22.zarr")
    plain, ours = [], []
    for turn in range(n_turns):
        numbers = range(turn * TURN, (turn + 1) * TURN)
        start = time.perf_counter()
        for number in numbers:
            np.fromfile(folder / f"{number}.bin", np.float32)
        middle = time.perf_counter()
        for number in numbers:
            opened.read(slice(number * SHARD_IMAGES, (number + 1) * SHARD_IMAGES))
        plain.append(middle - start)
        ours.append(time.perf_counter() - middle)
    return plain, ours


def ingested(folder: Path, n: int = 300, side: int = 640) -> float:
    """Seconds per image of `ingest`: corpus photographs, each a smooth random picture, after the pairs of two women."""
    (folder / "raw").mkdir()
    rng = np.random.default_rng(0)
    third = side // 3
    for region, top in (("face", 0), ("bust", third)):
        mask = Image.new("L", (side, side))
        mask.paste(255, (third, top, 2 * third, top + third))
        mask.save(folder / "raw" / f"{region}.png")
    rows = [{"identity": w, "condition": c, "emotion": "happy"} for w in ("anna", "bea") for c in labels.CONDITIONS]
    masks = {f"{region}_mask": f"{region}.png" for region in labels.REGIONS}
    rows = [row | masks for row in rows] + [{} for _ in range(n)]
    for number in range(len(rows)):
        coarse = Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / "raw" / f"{number}.jpg")
    table = pd.DataFrame(rows).assign(image=[f"{number}.jpg" for number in range(len(rows))])
    table.to_csv(folder / "raw" / manifest.MANIFEST_FNAME, index=False)
    config = params.load(Ingest, fpath=ROOT / "params.yaml")
    config = config.model_copy(update={"folder": str(folder / "raw"), "image_size": 224})
    start = time.perf_counter()
    table, look = ingest.from_folder(config)
    with contextlib.chdir(folder):
        ingest.write(ingest.complete(table, config), look, 224, {})
    return (time.perf_counter() - start) / len(rows)


def row(what: str, seconds: Seconds) -> tuple[str, ...]:
    plain, ours = (TURN * SHARD_BYTES / 1e6 / median(turns) for turns in seconds)
    return what, f"{plain:.0f}", f"{ours:.0f}", f"{ours / plain:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=20, help="of the store; the plain files take as much again")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    n_turns = max(1, round(given.gib * 2**30 / SHARD_BYTES / TURN))
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        rows = [row("written", write(Path(name), n_turns)), row("read", read(Path(name), n_turns))]
        per_image = ingested(Path(name))
    print(f"ingest: {per_image:.4f} s per image\n")
    print(markdown(COLUMNS, rows))
    print(f"\n{n_turns * TURN} shards of {SHARD_BYTES / 1e6:.0f} MB, {n_turns * TURN * SHARD_BYTES / 1e9:.1f} GB each")


if __name__ == "__main__":
    main()

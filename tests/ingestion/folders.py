"""Folders of images with masks and a manifest, as a user makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from stages.core.ingestion.manifest import Limits
from stages.core.run.labels import CONDITIONS

SIZE = (60, 40)
BOXES = {"bust": (20, 20, 40, 30), "face": (25, 2, 35, 15)}
LIMITS = Limits(emotions=("happy", "sad"), max_pixels=10_000)


def photograph(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*SIZE[::-1], 3), dtype=np.uint8))


def mask(region: str = "bust", *, box: tuple[int, ...] = (), inside: int = 255, outside: int = 0) -> Image.Image:
    painted = Image.new("L", SIZE, outside)
    painted.paste(inside, box or BOXES[region])
    return painted


def write(folder: Path, women: tuple[str, ...] = ("anna", "bea")) -> Path:
    """Women in both conditions and with two emotions, with masks. Rows 2 to 5 are sad if there are two women."""
    rows = []
    for emotion in ("sad", "happy"):
        for woman in women:
            for condition in CONDITIONS:
                stem = f"{woman}_{emotion}_{condition}"
                photograph(len(rows)).save(folder / f"{stem}.png")
                for region in BOXES:
                    mask(region).save(folder / f"{stem}_{region}.png")
                named = {f"{region}_mask": f"{stem}_{region}.png" for region in BOXES}
                labels = {"identity": woman, "condition": condition, "emotion": emotion, "intensity": "", "prompt": ""}
                rows.append({"image": f"{stem}.png", **labels, **named})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder

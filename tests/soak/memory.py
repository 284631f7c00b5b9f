"""The most memory that stages take on the default study, and on one of twice the women and corpus images.

    python -m tests.soak.memory

Stages are run in a clone with the CLIP and the SAE that the default study has made here (`make repro` first). Exits
with 1 if any takes a tenth more.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from stages.core.run import params
from stages.core.run.params import Point
from stages.core.schema import World
from tests.bench.table import markdown
from tests.imports import ROOT
from tests.memory import peak
from tests.studies import change_params, clone

GROWTH = 1.1
COLUMNS = ("stage", "GiB", "GiB, images doubled", "ratio")
STAGES = ("ingest", "extract", "analyse_sae", "describe_latents", "heatmap", "check_heatmaps", "ablate")


def study(folder: Path) -> Point:
    """A clone that lacks only what depends on the images; returns the grid point that was chosen."""
    clone(folder, {})
    chosen = json.loads((ROOT / "data" / "selection" / "selection.json").read_text())
    point = Point(chosen["layer"], chosen["expansion"])
    for name in ("clip", "selection", "selection_by_image", f"sae/{point}"):
        shutil.copytree(ROOT / "data" / name, folder / "data" / name)
    return point


def peaks(folder: Path, point: Point) -> dict[str, int]:
    """Peak memory of each stage, in bytes. The codes of the chosen SAE are those of the images that are there."""
    found = {}
    for name in STAGES:
        options = ("--layer", str(point.layer), "--expansion", str(point.expansion)) if name == "analyse_sae" else ()
        found[name] = peak(folder, f"stages.{name}", *options)
        if name == "analyse_sae":
            codes = folder / "data" / "selection_by_image" / "pooled.zarr"
            shutil.rmtree(codes)
            shutil.copytree(folder / "data" / "analysis" / str(point) / "pooled.zarr", codes)
    return found


def main() -> None:
    world = params.load(World, fpath=ROOT / "params.yaml")
    with tempfile.TemporaryDirectory() as workplace:
        folder = Path(workplace)
        point = study(folder)
        once = peaks(folder, point)
        change_params(folder, {"world": {"n_women": 2 * world.n_women, "n_corpus": 2 * world.n_corpus}})
        twice = peaks(folder, point)
    rows = [(n, f"{once[n] / 2**30:.2f}", f"{twice[n] / 2**30:.2f}", f"{twice[n] / once[n]:.3f}") for n in STAGES]
    print(markdown(COLUMNS, rows))
    sys.exit(any(twice[name] > GROWTH * once[name] for name in STAGES))


if __name__ == "__main__":
    main()

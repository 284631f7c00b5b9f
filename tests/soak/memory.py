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

from stages.core import params
from tests.bench.table import markdown
from tests.imports import ROOT
from tests.memory import peak
from tests.studies import change_params, clone

GROWTH = 1.1
COLUMNS = ("stage", "GiB", "GiB, images doubled", "ratio")


def stages(point: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Command of each stage, in the order in which they need each other."""
    named = {name: (f"stages.{name}",) for name in ("ingest", "extract", "heatmap", "ablate")}
    return {**named, "analyse_sae": ("stages.analyse_sae", *point)}


def study(folder: Path) -> tuple[str, ...]:
    """A clone that lacks only what depends on the images; returns the grid point that was chosen."""
    clone(folder, {})
    shutil.copytree(ROOT / "data" / "clip", folder / "data" / "clip")
    shutil.copytree(ROOT / "data" / "selection", folder / "data" / "selection")
    chosen = json.loads((ROOT / "data" / "selection" / "selection.json").read_text())
    name = f"l{chosen['layer']}_x{chosen['expansion']}"
    shutil.copytree(ROOT / "data" / "sae" / name, folder / "data" / "sae" / name)
    return ("--layer", str(chosen["layer"]), "--expansion", str(chosen["expansion"]))


def main() -> None:
    world = params.load("world", fpath=ROOT / "params.yaml").world
    peaks: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as workplace:
        folder = Path(workplace)
        point = study(folder)
        for factor in (1, 2):
            change_params(folder, {"world": {"n_women": factor * world.n_women, "n_corpus": factor * world.n_corpus}})
            for name, command in stages(point).items():
                peaks.setdefault(name, []).append(peak(folder, *command))
    rows = [(n, f"{a / 2**30:.2f}", f"{b / 2**30:.2f}", f"{b / a:.3f}") for n, (a, b) in peaks.items()]
    print(markdown(COLUMNS, rows))
    sys.exit(any(b > GROWTH * a for a, b in peaks.values()))


if __name__ == "__main__":
    main()

"""Both studies at toy size, in repositories of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from stages.core.run import labels
from tests import forks
from tests.imports import ROOT

TOY: dict[str, dict[str, Any]] = {
    "compute": {"threads": 1},
    "grid": {"layers": [1, 2, 3], "expansions": [1, 2, 4]},
    "inference": {
        "confidence": 0.05,
        "n_bootstrap": 40,
        "n_permutations": 60,
        "alpha": 0.999,
        "min_gap": 0.0,
        "min_effect": 0.0,
        "min_readout": 0.0,
    },  # some latents pass, so edits are run
    "ingest": {"image_size": 32},
    "world": {"n_women": 6, "n_corpus": 8},
    "demo": {"n_portraits": 64, "width": 32, "layers": 3, "steps": 20, "batch_size": 16, "min_accuracy": 0.0},
    "extract": {"batch_size": 10, "shard_images": 16},
    "train_sae": {"steps": 8, "batch_size": 128, "target_l0": 6.0},
    "edit": {"n_latents": 3, "n_per_step": 2, "max_cost": 1.0, "curve": [1, 2]},
    "analyse_sae": {"n_checked": 3},
    "select_sae": {"max_clusters": 3, "n_candidates": 5, "n_searched": 2},
    "describe_latents": {"n_images": 2, "n_other": 2},
    "heatmap": {"n_shown": 2},
    "map_readout": {"n_women": 4, "n_steps": 4, "n_shown": 2},
    "ablate": {"n_random_sets": 5, "n_null_searches": 2, "n_other_null_searches": 1},
}
PHOTOGRAPHS: dict[str, dict[str, Any]] = {
    **TOY,
    "grid": {"layers": [11, 12], "expansions": [2]},  # not the three by three of dvc.yaml
    "ingest": {"source": "folder", "image_size": 224, "emotions": ["calm", "lively"], "prompt": "a {emotion} picture"},
    "describe_latents": {"prompts": ["a {emotion} picture", "a flower", "a temple"]},
    "clip": {"source": "open_clip", "architecture": "ViT-S-32-alt", "pretrained": "random"},
    "train_sae": {**TOY["train_sae"], "recipe": "published", "train_on": "audit", "sparsity_coefficient": 0.001},
}
ENV = {**os.environ, "PATH": forks.TESTED_PATH, "DVC_NO_ANALYTICS": "1"}
GIT_ENV = {
    f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "t"), ("EMAIL", "t@t"))
}


def environment() -> dict[str, str]:
    """Variables with which `python -m stages.<name>` is a fork, below DVC too. With ENV it is a process of its own."""
    return ENV | {"PATH": forks.path()}


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=environment() | GIT_ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


def change_params(folder: Path, changes: dict[str, dict[str, Any]]) -> None:
    given = yaml.safe_load((folder / "params.yaml").read_text())
    for section, values in changes.items():
        given[section].update(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))


def fit_grid(folder: Path) -> None:
    """Take entries of dvc.yaml away that name points beyond the grid of params.yaml, as a user has to."""
    grid = yaml.safe_load((folder / "params.yaml").read_text())["grid"]
    dvc = yaml.safe_load((folder / "dvc.yaml").read_text())

    def fits(entry: Any) -> bool:
        return all(int(i) < len(grid[key]) for key, i in re.findall(r"grid\.(\w+)\[(\d+)\]", str(entry)))

    for stage in dvc["stages"].values():
        stage.update({key: [*filter(fits, stage[key])] for key in ("deps", "outs") if key in stage})
    (folder / "dvc.yaml").write_text(yaml.safe_dump(dvc, sort_keys=False))


def clone(folder: Path, changes: dict[str, dict[str, Any]]) -> Path:
    """What git would commit, less lock and metrics of the default run, in a new repository, with other parameters."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("metrics/", "dvc.lock")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    change_params(folder, changes)
    fit_grid(folder)
    run(folder, "git", "init", "-q")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "clone")
    return folder


def cut_photographs(folder: Path) -> None:
    """Pairs, masks and corpus images out of the photographs that scikit-learn ships."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    rows = []

    def cut(name: str) -> None:
        photograph = photographs[rng.integers(len(photographs))]
        y, x = rng.integers(0, 200, 2)
        Image.fromarray(photograph[y : y + 120, x : x + 100]).save(folder / name)

    for woman in range(4):
        for emotion in PHOTOGRAPHS["ingest"]["emotions"]:
            for condition in labels.CONDITIONS:
                stem = f"{woman}_{emotion}_{condition}"
                cut(f"{stem}.jpg")
                for region, box in (("bust", (30, 70, 70, 100)), ("face", (35, 15, 65, 50))):
                    mask = Image.new("L", (100, 120), 0)
                    mask.paste(255, box)
                    mask.save(folder / f"{stem}_{region}.png")
                masks = {f"{region}_mask": f"{stem}_{region}.png" for region in labels.REGIONS}
                described = {"identity": f"w{woman}", "condition": condition, "emotion": emotion}
                rows.append({"image": f"{stem}.jpg", **described, **masks})
    cut("corpus.png")
    rows.append({"image": "corpus.png"})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)


def repro(folders: dict[str, Path]) -> None:
    """Run studies to their end, side by side; what they print is in repro.log."""
    logs = {name: (folder / "repro.log").open("w") for name, folder in folders.items()}
    running = {
        name: subprocess.Popen(
            ["dvc", "repro"], cwd=folder, env=environment(), stdout=logs[name], stderr=subprocess.STDOUT
        )
        for name, folder in folders.items()
    }
    codes = {name: process.wait() for name, process in running.items()}
    for name, folder in folders.items():
        logs[name].close()
        assert codes[name] == 0, (folder / "repro.log").read_text()[-6000:]


def ran(log: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", log))


def stage_names(folder: Path) -> set[str]:
    """Stages of dvc.yaml by the names that DVC gives them, those with a matrix once for each point of the grid."""
    nodes = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    grid = yaml.safe_load((folder / "params.yaml").read_text())["grid"]
    points = [f"{layer}-{expansion}" for layer in grid["layers"] for expansion in grid["expansions"]]
    return {
        f"{name}@{point}" if point else name
        for name, node in nodes.items()
        for point in (points if "matrix" in node else [""])
    }

"""Run the pipeline on many planted worlds -> is what it says true, and how often?

reads    params.yaml (the default study; each world of `worlds.py` changes some of it)
writes   stages/studies/sweep.csv (a row per run, added as each run ends), stages/studies/sweep.png

    python -m stages.studies.sweep                                # the runs that are not recorded yet, then the tables
    python -m stages.studies.sweep --worlds no_bias --seeds 201 202  # more seeds
    python -m stages.studies.sweep --jobs 0                       # tables of what is recorded

Each run has its own women, its own CLIP and its own SAEs, in a temporary folder. The stages are run one after the other
without DVC, on one thread each, so that many runs fit into an hour.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import pandas as pd
import yaml

from stages.core.report import sentences
from stages.core.run import outs, params
from stages.core.run.errors import StudyError, run_command
from stages.core.run.labels import CLOTHED, SEMI_NUDE
from stages.core.run.params import PARAMS_FPATH
from stages.core.run.progress import progress
from stages.core.schema import Inference
from stages.studies import sweep_tables
from stages.studies.worlds import FIRST_SEED, N_MAPPED, WORLDS, World

RUNS_FPATH, PLOT_FPATH = Path(__file__).with_name("sweep.csv"), Path(__file__).with_name("sweep.png")
ALWAYS = {"compute.device": "cpu", "compute.threads": 1, "ablate.n_random_sets": 19, "ablate.n_null_searches": 0}
SEEDS = ("demo.seed", "world.seed", "train_sae.seed")
BEFORE, OF_THE_GRID = ("ingest", "prepare_clip", "extract"), ("train_sae", "analyse_sae")
AFTER = ("select_sae", "ablate")
MAPPED = ("describe_latents", "heatmap", "check_heatmaps")
JOBS = 2
FORKS = multiprocessing.get_context("forkserver")  # its process imports all once, so that stages start at once


class SweepError(StudyError):
    """A stage of a run failed. The message names world, seed and stage, and gives the stage's last words."""


def settings(world: World, seed: int, fpath: Path = PARAMS_FPATH) -> dict[str, Any]:
    """Return the content of params.yaml for one run.

    world: the planted world. seed: seed of the women, of CLIP and of the SAEs.
    fpath: the params.yaml whose values are kept where the world does not change them.
    Raises ParamsError if a value is not allowed.
    """
    values = params.read(fpath)
    for name, value in (ALWAYS | world.values | dict.fromkeys(SEEDS, seed)).items():
        section, key = name.split(".")
        values[section][key] = value
    params.validate(values, fpath)
    return values


def run(name: str, seed: int) -> dict[str, Any]:
    """Run the pipeline on one planted world, in a temporary folder.

    name: name of the world. seed: seed of the women, of CLIP and of the SAEs.
    Returns the row of sweep.csv (`results`).
    Raises SweepError if a stage fails.
    """
    world = WORLDS[name]
    mapped = world.mapped and seed < FIRST_SEED + N_MAPPED
    with tempfile.TemporaryDirectory() as place:
        folder, values = Path(place), settings(world, seed)
        (folder / PARAMS_FPATH).write_text(yaml.safe_dump(values))
        grid = [
            ("--layer", str(layer), "--expansion", str(expansion))
            for layer in values["grid"]["layers"]
            for expansion in values["grid"]["expansions"]
        ]
        stages = [(stage, ()) for stage in BEFORE] + [(stage, point) for stage in OF_THE_GRID for point in grid]
        for stage, options in stages + [(stage, ()) for stage in AFTER + (MAPPED if mapped else ())]:
            _run_stage(folder, stage, options, f"{name}, seed {seed}")
        return {"world": name, "seed": seed, **results(folder)}


def _run_stage(folder: Path, stage: str, options: tuple[str, ...], which: str) -> None:
    process = FORKS.Process(target=_become, args=(folder, stage, options))
    (folder / "log").touch()
    process.start()
    process.join()
    if process.exitcode:
        said = (folder / "log").read_text().strip().splitlines()[-3:]
        raise SweepError(f"{which}: {stage} failed: {' '.join(said)}")


def _become(folder: Path, stage: str, options: tuple[str, ...]) -> None:
    os.chdir(folder)
    for number in (1, 2):
        os.dup2(os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv = [stage, *options]
    run_command(import_module(f"stages.{stage}").main)


def results(folder: Path) -> dict[str, Any]:
    """Read what a run found.

    folder: the folder of the run.
    Returns the numbers of one row of sweep.csv by column. R is the log-probability of the true emotion, nats. A gap is
    clothed minus semi-nude. Gap and latents are of the women used for choosing, all else is of the others.
        demo_accuracy, demo_attempts    accuracy of CLIP on clear faces of new women, and number of its trainings
        gap, gap_low, gap_high          gap in R with its interval, nats
        losing                          the condition that is said to lose, or none
        n_saes, n_saes_named            number of SAEs, and of those in which a bias latent is named
        n_bias, n_perception, n_edited  numbers of latents of the chosen SAE: named in each list, and edited
        layer, expansion                the chosen SAE
        semi_nude, clothed              accuracy without an edit
        semi_nude_edited, ...           accuracy with the edit
        gain, gain_low, gain_high       rise of accuracy in the losing condition, with its interval
        cost, cost_low, cost_high       fall of accuracy in the other condition, with its interval
        R_gap, R_gap_edited             gap in R without and with the edit, nats
        bust_reliance, face_reliance    change of R on semi-nude images when bust or face is greyed out, nats
        finding                         first sentences of the report
    and for runs with heatmaps
        encode_colour                   share of the edited latents that encode the top's colour
        lift_gap_*, deletion_gap_*      gaps in energy lift on the bust, and in the change of R while the patches of the
                                        bust are greyed out in the heatmap's order (nats), by heatmap method
        iou_gap_grad_eclip              gap in IoU of the Grad-ECLIP map with the bust
    """

    def metrics(name: str) -> Any:
        return json.loads((folder / "metrics" / f"{name}.json").read_text())

    select, ablate, extract = metrics("select_sae"), metrics("full/ablate"), metrics("extract")
    chosen = json.loads((folder / "data/selection/selection.json").read_text())
    named = [json.loads(fpath.read_text())["bias_latents"] for fpath in (folder / "metrics/analyse_sae").iterdir()]
    inference = Inference(**params.read(folder / PARAMS_FPATH)["inference"])
    told = {"select_sae": select, "ablate": ablate, "extract": extract}
    accuracy, edit, training = ablate["accuracy"], ablate["edit"]["accuracy"], metrics("prepare_clip")["training"]
    row = {
        "demo_accuracy": training["accuracy"],
        "demo_attempts": training["attempts"],
        **_spread("gap", chosen["gap"]),
        "losing": chosen["losing"],
        "n_saes": len(named),
        "n_saes_named": sum(n > 0 for n in named),
        "n_bias": select["n_bias"],
        "n_perception": select["n_perception"],
        "n_edited": len(chosen["latents"]),
        "layer": select["layer"],
        "expansion": select["expansion"],
        **{key: accuracy["original"][key]["estimate"] for key in (SEMI_NUDE, CLOTHED)},
        "R_gap": ablate["R"]["original"]["gap"]["estimate"],
        "bust_reliance": ablate["reliance"]["original"]["bust"]["R"][SEMI_NUDE]["estimate"],
        "face_reliance": ablate["reliance"]["original"]["face"]["R"][SEMI_NUDE]["estimate"],
        "finding": sentences.finding(told, chosen, inference),
    }
    if chosen["latents"]:
        row |= {f"{key}_edited": accuracy["edited"][key]["estimate"] for key in (SEMI_NUDE, CLOTHED)}
        row |= _spread("gain", edit["gain"]) | _spread("cost", edit["cost"])
        row["R_gap_edited"] = ablate["R"]["edited"]["gap"]["estimate"]
    if (folder / "metrics/check_heatmaps.json").exists():
        maps = metrics("full/check_heatmaps")["maps"]
        row["encode_colour"] = metrics("describe_latents")["edited_latents"]["encode_colour"]
        row |= {f"lift_gap_{key}": found["bust_energy_lift"]["gap"]["estimate"] for key, found in maps.items()}
        row |= {f"deletion_gap_{key}": found["bust_deletion"]["gap"]["estimate"] for key, found in maps.items()}
        row["iou_gap_grad_eclip"] = maps["grad_eclip"]["bust_matched_area_iou"]["gap"]["estimate"]
    return row


def _spread(name: str, found: dict[str, float]) -> dict[str, float]:
    return {name: found["estimate"], f"{name}_low": found["low"], f"{name}_high": found["high"]}


def recorded() -> pd.DataFrame:
    """Read sweep.csv, a row per run. If there is no such file, return a table without rows."""
    if not RUNS_FPATH.exists():
        return pd.DataFrame(columns=["world", "seed"])
    return pd.read_csv(RUNS_FPATH)


def record(row: dict[str, Any]) -> None:
    """Add a run to sweep.csv. It replaces a run of the same world and seed."""
    runs = pd.concat([recorded(), pd.DataFrame([row])], ignore_index=True)
    runs = runs.drop_duplicates(["world", "seed"], keep="last")
    order = runs["world"].map(list(WORLDS).index)
    runs = runs.iloc[order.mul(10**6).add(runs["seed"]).argsort()]
    with outs.atomic_output(RUNS_FPATH) as unfinished:
        runs.to_csv(unfinished, index=False, float_format="%.6g")


def wanted(worlds: Iterable[str], seeds: Iterable[int] | None) -> list[tuple[str, int]]:
    """List the runs to do: world and seed. The first seeds of all worlds come first.

    worlds: names of worlds. seeds: the seeds, or None for the seeds of each world that are not recorded.
    """
    if seeds is not None:
        return [(name, seed) for seed in seeds for name in worlds]
    done = set(recorded()[["world", "seed"]].itertuples(index=False, name=None))
    runs = [(name, FIRST_SEED + i) for name in worlds for i in range(WORLDS[name].n_seeds)]
    return sorted((run for run in runs if run not in done), key=lambda run: run[1])


def main() -> None:
    parser = params.command_line(__doc__)
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS), metavar="WORLD")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: those of worlds.py that are not recorded")
    parser.add_argument("--jobs", type=int, default=JOBS, help="runs at a time; 0 runs nothing")
    options = parser.parse_args()
    todo, lock = wanted(options.worlds, options.seeds) if options.jobs else [], Lock()

    def run_and_record(which: tuple[str, int]) -> str:
        try:
            row = run(*which)
        except SweepError as error:
            return str(error)
        with lock:
            record(row)
        return ""

    os.environ["OMP_NUM_THREADS"] = "1"
    FORKS.set_forkserver_preload([f"stages.{stage}" for stage in BEFORE + OF_THE_GRID + AFTER + MAPPED])
    with ThreadPoolExecutor(max(options.jobs, 1)) as pool:
        failed = [said for said in progress(pool.map(run_and_record, todo), "runs", len(todo)) if said]
    runs = recorded()
    sweep_tables.draw(runs, PLOT_FPATH)
    print(sweep_tables.table(runs), sweep_tables.rates(runs), sweep_tables.tracking_table(runs), *failed, sep="\n\n")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    run_command(main)

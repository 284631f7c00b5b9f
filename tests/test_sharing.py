"""What leaves by push, and what a colleague does with it: on the DAG with stages that write names, and on real runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatch
from hashlib import md5
from pathlib import Path

import boto3
import pandas as pd
import pytest
import yaml

from stages.core.run import params
from stages.core.schema import Ingest, TrainSae
from stages.studies.share import OUTPUTS, Recorded, ShareError, check, classed, few_people, recorded
from tests import s3
from tests.imports import ROOT
from tests.s3 import BUCKET
from tests.studies import ENV, GIT_ENV, change_params, clone, ran, run

WRITE = """\
import json, sys
from pathlib import Path

for name in sys.argv[1:]:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    found = Path("texts") / name
    number = json.dumps({"number": len(name)})
    Path(name).write_text(found.read_text() if found.is_file() else number if name.endswith(".json") else name)
"""
COUNTS = '{"count": {"women": 40, "discovery_women": 20, "corpus_images": 20}}'
KEY = "image,identity,file,woman\npair0000_clothed,woman000,photos/anna_1.jpg,Anna Lind\ncorpus00000,,other.png,\n"
POINTS = [f"{layer}-{expansion}" for layer in (2, 3, 4) for expansion in (8, 16, 32)]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def entries(stage: dict) -> Iterator[tuple[str, dict]]:
    """Path and options of each output of a stage of dvc.yaml."""
    for entry in [*stage.get("outs", []), *stage.get("metrics", [])]:
        yield (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))


def pattern(path: str) -> str:
    return re.sub(r"\$\{[^}]*\}", "*", path)


def test_every_output_is_classed_and_what_is_private_stays():
    outputs = {pattern(path): options for stage in DVC.values() for path, options in entries(stage)}
    assert set(outputs) - set(OUTPUTS) == set(), "add to OUTPUTS in stages/studies/share.py, with a reason"
    assert set(OUTPUTS) - set(outputs) == set(), "remove from OUTPUTS in stages/studies/share.py"
    for path, options in outputs.items():
        kind, tracked_by_git = OUTPUTS[path], options.get("cache") is False
        assert kind.reason and not (kind.private and tracked_by_git), path
        assert not kind.private or options.get("push") is False, f"mark {path} in dvc.yaml"
        assert (kind.files == ()) == (kind.private or Path(path).suffix != ""), f"name the files of {path}"


def test_a_new_output_of_a_stage_is_in_no_class_yet():
    assert classed("data/embeddings.npy") is None and classed("plots/pixels.csv") is None
    assert classed("data/activations/l22.zarr").private and not classed("data/sae/l22_x8").private


def files_of(path: str) -> list[str]:
    """The files that a stage writes for one output, here only in name."""
    kind = OUTPUTS[pattern(path)]
    if path == "data/dataset":
        return [f"{path}/names.csv", f"{path}/images"]
    if kind.private and Path(path).suffix in ("", ".zarr"):
        return [f"{path}/part"]
    return [f"{path}/{name.replace('*', 'part')}" for name in kind.files] or [path]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished study of a folder of images, whose stages have only written their names into their outputs."""
    folder = clone(tmp_path_factory.mktemp("finished"), {"ingest": {"source": "folder"}})
    pipeline = yaml.safe_load((folder / "dvc.yaml").read_text())
    for stage in pipeline["stages"].values():
        written = [name for path, _ in entries(stage) for name in files_of(path)]
        stage["cmd"] = " ".join([f'"{sys.executable}"', "write.py", *written])
    (folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    (folder / "write.py").write_text(WRITE)
    for name, text in (("data/dataset/names.csv", KEY), ("metrics/ingest.json", COUNTS)):
        (folder / "texts" / name).parent.mkdir(parents=True)
        (folder / "texts" / name).write_text(text)
    (folder / ".gitignore").write_text((folder / ".gitignore").read_text() + "/texts/\n")
    run(folder, "dvc", "repro", "--quiet")
    run(folder, "dvc", "remote", "add", "--default", "store", str(folder.parent / "store"))
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "run")
    return folder


@pytest.fixture
def study(finished, tmp_path) -> Path:
    """A copy of the finished study, to be changed."""
    folder = shutil.copytree(finished, tmp_path / "study", symlinks=True)
    run(folder, "dvc", "remote", "modify", "store", "url", str(tmp_path / "store"))
    return folder


def stored(study: Path) -> set[str]:
    """MD5 of all files in the remote."""
    return {path.parent.name + path.name for path in (study.parent / "store" / "files").rglob("*") if path.is_file()}


def outputs_of(study: Path) -> dict[str, Path]:
    """Outputs by path, as dvc.lock records them."""
    lock = yaml.safe_load((study / "dvc.lock").read_text())["stages"].values()
    return {out["path"]: study / out["path"] for stage in lock for out in stage["outs"]}


def share(study: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stages.studies.share"]
    return subprocess.run(command, cwd=study, env=ENV | GIT_ENV, capture_output=True, text=True, check=False)


def hashes(path: Path) -> set[str]:
    """MD5 of a file, or of every file in a folder, as DVC names them in its remote."""
    fpaths = path.rglob("*") if path.is_dir() else [path]
    return {md5(fpath.read_bytes()).hexdigest() for fpath in fpaths if fpath.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("command", [(), ("--run-cache",), ("--all-commits",), ("data/dataset", "plots/report.html")])
def test_no_way_to_push_takes_a_private_output(study, command):
    run(study, "dvc", "push", *command)
    kept = stored(study)
    for path, place in outputs_of(study).items():
        if classed(path).private:
            assert hashes(place).isdisjoint(kept), path
        elif not path.startswith("metrics/") and path != "plots/finding.png" and not command:
            assert hashes(place) <= kept, path


@pytest.mark.slow
def test_a_colleague_makes_again_what_was_not_pushed_and_trains_nothing(study, tmp_path):
    """Photographs: the colleague has the same images. Only stages with private outputs run; the rest is fetched."""
    run(study, "dvc", "push")
    run(study, "git", "commit", "-qam", "remote")
    theirs = tmp_path / "theirs"
    run(tmp_path, "git", "clone", "-q", str(study), str(theirs))
    run(theirs, "dvc", "pull", "--allow-missing")
    assert (theirs / "data" / "sae" / "l2_x8" / "sae_weights.safetensors").is_file()
    assert not hashes(theirs / "data" / "activations") | hashes(theirs / "data" / "dataset")
    log = run(theirs, "dvc", "repro", "--allow-missing", "--dry")
    assert ran(log) == set() and "up to date" in log
    shutil.copytree(study / "texts", theirs / "texts")
    change_params(theirs, {"ablate": {"seed": 7}})
    made_again = {"ingest", "extract", *(f"analyse_sae@{point}" for point in POINTS), "select_sae"}
    assert ran(run(theirs, "dvc", "repro", "--pull", "ablate")) == made_again | {"ablate"}
    assert hashes(theirs / "data" / "activations") == hashes(study / "data" / "activations")


@pytest.mark.slow
def test_what_would_leave_is_listed_file_by_file(study):
    done = share(study)
    assert done.returncode == 0, done.stderr
    pushed, committed, stays = done.stdout.split("\n\n")[1:4]
    weights = "data/sae/l4_x32/sae_weights.safetensors"
    assert re.search(rf"shared +0\.0 KiB  {weights}: weights, trained on all images together", pushed)
    assert "metrics/ablate.json" in committed and "metrics/ablate.json" not in pushed
    for path in outputs_of(study):
        assert (f"  {path}: " in stays) == classed(path).private, path
    assert "private" not in pushed + committed and "Nothing private would leave." in done.stdout


def unmark(study: Path) -> None:
    text = (study / "dvc.yaml").read_text()
    (study / "dvc.yaml").write_text(text.replace("plots/ablate.csv:\n        push: false", "plots/ablate.csv"))


def add_photographs(study: Path) -> None:
    (study / "photographs").write_text("pixels")
    run(study, "dvc", "add", "photographs")


def track_a_photograph(study: Path) -> None:
    (study / "data" / "raw" / "a.jpg").write_text("pixels")
    run(study, "git", "add", "-f", "data/raw/a.jpg")


def name_a_woman(study: Path) -> None:
    (study / "plots" / "describe_latents.csv").unlink()
    (study / "plots" / "describe_latents.csv").write_text("prompts\na picture of anna lind\n")
    run(study, "dvc", "commit", "-f", "describe_latents")


def name_a_file(study: Path) -> None:
    (study / "metrics" / "select_sae.json").write_text('{"anna_1.jpg": 1}')


def keep_an_earlier_file(study: Path) -> None:
    (study / "data" / "selection" / "pooled.zarr").mkdir()
    (study / "data" / "selection" / "pooled.zarr" / "part").write_text("a row per image")
    run(study, "dvc", "commit", "-f", "select_sae")


def have_few_women(study: Path) -> None:
    change_params(study, {"train_sae": {"train_on": "discovery"}})


def lose_the_key(study: Path) -> None:
    (study / "data" / "dataset" / "names.csv").unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (unmark, "plots/ablate.csv would leave by dvc push: a row per image"),
        (add_photographs, "photographs would leave by dvc push, and nobody classified it"),
        (track_a_photograph, "data/raw/a.jpg is tracked by git"),
        (name_a_woman, "plots/describe_latents.csv would leave by dvc push, and contains the name 'anna lind'"),
        (name_a_file, "metrics/select_sae.json would leave by git push, and contains the name 'anna_1.jpg'"),
        (keep_an_earlier_file, "data/selection/pooled.zarr/part would leave by dvc push, and no stage writes it now"),
        (have_few_women, "SAEs would leave that were trained on 20 people, fewer than 40"),
        (lose_the_key, "names.csv is missing or damaged"),
    ],
)
def test_what_is_private_and_would_leave_is_refused(study, spoil, says, monkeypatch):
    spoil(study)
    monkeypatch.chdir(study)
    with pytest.raises(ShareError, match=re.escape(says)):
        check(list(recorded()), *params.load(Ingest, TrainSae))


def test_few_people_matter_only_to_saes_that_were_trained_here_and_leave(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "ingest.json").write_text(COUNTS)
    training = params.load(TrainSae, fpath=ROOT / "params.yaml")
    saes = [Recorded("data/sae/l2_x8", "cfg.json", "dvc push", tmp_path, 1)]

    def refused(files: list[Recorded], **changes: str) -> bool:
        return few_people(files, training.model_copy(update=changes)) != []

    assert refused(saes, train_on="discovery")
    assert not refused(saes, train_on="discovery_and_corpus") and not refused(saes, train_on="audit")
    assert not refused(saes, train_on="discovery", source="pretrained")
    assert not refused([replace(saes[0], how="")], train_on="discovery")


@pytest.mark.slow
def test_a_run_of_photographs_is_not_taken_for_drawn_portraits(study):
    """The parameters are those of the planted world again, but dvc.lock still records the run of photographs."""
    change_params(study, {"ingest": {"source": "synthetic"}})
    name_a_file(study)
    done = share(study)
    assert done.returncode == 1 and "contains the name 'anna_1.jpg'" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def endpoint(monkeypatch) -> Iterator[str]:
    """Address of a server that speaks S3."""
    s3.log_in(monkeypatch)
    with s3.server() as address:
        yield address


def test_a_colleague_gets_the_results_and_no_image(studies, endpoint, tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    shutil.copytree(studies["synthetic"], ours)
    store = boto3.client("s3", endpoint_url=endpoint)
    store.create_bucket(Bucket=BUCKET)
    for command in (
        ("dvc", "remote", "add", "--default", "store", f"s3://{BUCKET}"),
        ("dvc", "remote", "modify", "store", "endpointurl", endpoint),
        ("git", "add", "-A"),
        ("git", "commit", "-qm", "run"),
        ("dvc", "push"),
    ):
        run(ours, *command)
    pages = store.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    kept = {key["Key"].removeprefix("files/md5/").replace("/", "") for page in pages for key in page["Contents"]}
    assert hashes(ours / "data" / "sae") <= kept
    private = {path: place for path, place in outputs_of(ours).items() if classed(path).private}
    assert {"data/dataset", "data/activations/l1.zarr", "plots/heatmap.png", "plots/report.html"} <= set(private)
    shared = [hashes(place) for path, place in outputs_of(ours).items() if not classed(path).private]
    for path, place in private.items():
        own = hashes(place).difference(*shared)  # the lists of the chosen SAE are in data/selection, too
        assert own and own.isdisjoint(kept), path
    lock = yaml.safe_load((ours / "dvc.lock").read_text())["stages"]
    written = {out["path"]: out["md5"] for stage in lock.values() for out in stage["outs"]}
    assert {written[path] for path in private}.isdisjoint(kept)

    run(tmp_path, "git", "clone", "-q", str(ours), str(theirs))
    assert not (theirs / "data" / "sae").exists()
    log = run(theirs, "dvc", "repro", "--allow-missing", "--dry")
    assert ran(log) == set() and "up to date" in log

    run(theirs, "dvc", "repro", "--pull", "extract")  # images are drawn, or one's own: they are never in the store
    change_params(theirs, {"heatmap": {"n_shown": 1}})
    assert ran(run(theirs, "dvc", "repro", "--pull", "--allow-missing", "heatmap")) == {"heatmap"}
    assert (theirs / "data" / "selection").is_dir()
    assert not (theirs / "data" / "sae").exists(), "inputs of other stages were fetched"


@pytest.mark.parametrize("study", ["synthetic", "folder"])
def test_no_text_that_leaves_names_an_image_or_a_woman(studies, study):
    """Neither the names of the folder, nor those that the study gives its images and women."""
    folder = studies[study]
    table = pd.read_csv(folder / "data" / "dataset" / "manifest.csv", dtype=str, keep_default_na=False)
    names = {*table["image"], *table["identity"]} - {""}
    assert names and all(re.fullmatch(r"pair\d{4}_(clothed|semi_nude)|corpus\d{5}|woman\d{3}", name) for name in names)
    if study == "folder":
        key = pd.read_csv(folder / "data" / "dataset" / "names.csv", dtype=str, keep_default_na=False)
        assert (key[["image", "identity"]] == table[["image", "identity"]]).all(axis=None)
        names |= {*key["file"], *key["woman"]} - {""}
    word = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, names))})(?!\w)")
    shared = {path for path, kind in OUTPUTS.items() if not kind.private and not path.endswith(".png")}
    texts = {
        path: [f for f in (place.rglob("*") if place.is_dir() else [place]) if f.suffix in (".csv", ".json")]
        for path, place in outputs_of(folder).items()
        if any(fnmatch(path, known) for known in shared)
    }
    assert {known for known in shared for path in texts if fnmatch(path, known)} == shared
    assert all(texts.values()), "an output of which no text was read"
    for fpath in (fpath for found in texts.values() for fpath in found):
        assert word.search(fpath.read_text()) is None, fpath

"""dvc.yaml against the code: what a stage imports and reads is what it declares, no more and no less."""

from __future__ import annotations

import ast
import re

import pytest
import yaml

from stages.core import schema
from tests.imports import ROOT, params_sections, transitive

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
SPLICED = ("describe_latents", "heatmap", "ablate")  # stages that read the store of the chosen SAE's layer
STAGES = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")


def paths(stage: str, key: str) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in DVC[stage].get(key, [])]


def test_a_stage_file_for_every_node():
    assert sorted(DVC) == STAGES
    assert all(DVC[stage]["desc"] for stage in STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_are_the_modules_imported(stage):
    declared = {dep for dep in paths(stage, "deps") if dep.endswith(".py")}
    imported = {path.relative_to(ROOT).as_posix() for path in transitive(ROOT / "stages" / f"{stage}.py")}
    assert imported - declared == set(), f"add to deps of {stage} in dvc.yaml"
    assert declared - imported == set(), f"remove from deps of {stage} in dvc.yaml"


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_the_sections_loaded(stage):
    fpath = ROOT / "stages" / f"{stage}.py"
    declared = paths(stage, "params")
    loaded = params_sections(fpath)
    read = set(schema.SECTIONS) if loaded is None else loaded
    assert {key.split(".")[0] for key in declared} == read, f"params of {stage} in dvc.yaml"
    for key in declared:  # a declared key such as grid.layers: no other key of that section may be read
        if "." in key:
            section, name = key.split(".")
            source = ast.unparse(ast.parse(fpath.read_text()))
            assert source.count(f"config.{section}") == source.count(f"config.{key}"), f"{stage} reads more than {key}"
            assert name in schema.SECTIONS[section].model_fields


@pytest.mark.parametrize("stage", STAGES)
def test_stages_meet_only_through_files(stage):
    others = {ROOT / "stages" / f"{other}.py" for other in STAGES if other != stage}
    assert transitive(ROOT / "stages" / f"{stage}.py").isdisjoint(others)


def test_core_never_imports_stages():
    stage_files = {ROOT / "stages" / f"{stage}.py" for stage in STAGES}
    for module in (ROOT / "stages" / "core").glob("*.py"):
        assert transitive(module).isdisjoint(stage_files)


def test_every_annotated_shape_is_checked():
    """By the import hook in conftest.py, in every test."""
    annotated = {path.stem for path in (ROOT / "stages" / "core").glob("*.py") if "jaxtyping" in path.read_text()}
    hooked = re.findall(r"^    import stages\.core\.(\w+)", (ROOT / "tests" / "conftest.py").read_text(), re.MULTILINE)
    assert annotated <= set(hooked)


def missing_grid_lines(dvc: dict, grid: dict) -> list[str]:
    """Lines that dvc.yaml lacks for the grid of params.yaml, each with the place it belongs to."""
    layers, expansions = range(len(grid["layers"])), range(len(grid["expansions"]))
    points = [f"l${{grid.layers[{i}]}}_x${{grid.expansions[{j}]}}" for i in layers for j in expansions]
    stores = [f"data/activations/l${{grid.layers[{i}]}}.zarr" for i in layers]
    wanted = [("select_sae", "deps", f"data/{kind}/{point}") for kind in ("sae", "analysis") for point in points]
    wanted += [("extract", "outs", store) for store in stores]
    wanted += [(stage, "deps", store) for stage in SPLICED for store in stores]
    return [f"{stage}.{key}: add - {line}" for stage, key, line in wanted if line not in dvc[stage][key]]


def test_the_grid_is_spelled_out():
    assert missing_grid_lines(DVC, PARAMS["grid"]) == []
    lines = [str(line) for stage in DVC.values() for key in ("deps", "outs") for line in stage[key]]
    spelled = [line for line in lines if "${grid" in line]
    n_layers, n_expansions = len(PARAMS["grid"]["layers"]), len(PARAMS["grid"]["expansions"])
    assert len(spelled) == 2 * n_layers * n_expansions + (1 + len(SPLICED)) * n_layers, (
        "dvc.yaml names grid points params.yaml lacks"
    )


def test_a_grown_grid_names_the_lines_to_add():
    grown = {"layers": [*PARAMS["grid"]["layers"], 9], "expansions": PARAMS["grid"]["expansions"]}
    lines = missing_grid_lines(DVC, grown)
    assert "select_sae.deps: add - data/sae/l${grid.layers[3]}_x${grid.expansions[0]}" in lines
    assert "extract.outs: add - data/activations/l${grid.layers[3]}.zarr" in lines
    assert len(lines) == 2 * len(grown["expansions"]) + 1 + len(SPLICED)


def test_what_shows_people_stays_local():
    outs = [entry for stage in DVC.values() for entry in stage["outs"]]
    settings = {next(iter(entry)): next(iter(entry.values())) for entry in outs if isinstance(entry, dict)}
    for path in (
        "data/dataset",
        "plots/ingest.png",
        "plots/describe_latents.png",
        "plots/heatmap.png",
        "plots/report.html",
    ):
        assert settings[path]["push"] is False

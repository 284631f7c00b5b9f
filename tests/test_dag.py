"""dvc.yaml against the code: what a stage imports and reads is what it declares, no more and no less."""

from __future__ import annotations

import re

import pytest
import yaml

from stages.core import schema
from tests import imports
from tests.imports import CORE, ROOT, code_deps, params_read, transitive

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
CHOSEN = (
    "select_sae",
    "check_stability",
    "describe_latents",
    "heatmap",
    "map_readout",
    "ablate",
)  # stages that read the store of a layer that is chosen
SECTION_OF = {cls.__name__: name for name, cls in schema.SECTIONS.items()}
SIDES = [("CLOTHED", "SEMI_NUDE"), ("losing", r"(other|OTHER_CONDITION\[losing\])")]
SUBTRACTION = re.compile("|".join(rf"\[{a}\]\S* - \S*\[{b}\]" for side in SIDES for a, b in (side, side[::-1])))
STAGES = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")


def named(entries: list) -> list[str]:
    """Paths of a list in dvc.yaml, whose entries may have options."""
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def paths(stage: str, key: str) -> list[str]:
    return named(DVC[stage].get(key, []))


def test_a_stage_file_for_every_node():
    assert sorted(DVC) == STAGES
    assert all(DVC[stage]["desc"] for stage in STAGES)


def declared_code(stage: str) -> set[str]:
    return {path for path in paths(stage, "deps") if path.startswith("stages/")}


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_are_what_is_imported(stage):
    declared, imported = declared_code(stage), code_deps(stage)
    assert imported - declared == set(), f"add to deps of {stage} in dvc.yaml"
    assert declared - imported == set(), f"remove from deps of {stage} in dvc.yaml"


def test_code_deps_are_few_and_each_is_there():
    declared = [path for stage in STAGES for path in declared_code(stage)]
    assert len(declared) <= 122
    assert all((ROOT / path).exists() for path in declared)
    assert len([path for path in CORE.iterdir() if path.name != "__pycache__"]) <= 22


def test_imports_are_followed_into_packages_and_their_init_files(tmp_path, monkeypatch):
    """A stage that imports one module of a package, whose __init__ imports another package, depends on both."""
    core = tmp_path / "stages" / "core"
    for name, text in {
        "stages/__init__.py": "",
        "stages/draw.py": "def main():\n    from stages.core.deep.er import module\n",
        "stages/core/deep/__init__.py": "import stages.core.flat\n",
        "stages/core/deep/er/__init__.py": "from stages.core import beside\n",
        "stages/core/deep/er/module.py": "",
        "stages/core/flat.py": "",
        "stages/core/beside/__init__.py": "",
        "stages/core/unused.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(imports, "ROOT", tmp_path)
    monkeypatch.setattr(imports, "CORE", core)
    packages = {"stages/core/deep", "stages/core/flat.py", "stages/core/beside"}
    assert imports.code_deps("draw") == packages | {"stages/draw.py", "stages/__init__.py"}


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_those_read(stage):
    declared, read = set(paths(stage, "params")), params_read(stage, SECTION_OF)
    assert {key.split(".")[0] for key in declared} == {key.split(".")[0] for key in read}, f"params of {stage}"
    for key in read - declared:  # what is read of a section is declared by key, or the whole section is
        assert key.split(".")[0] in declared, f"{stage} reads {key}"
    for key in declared - set(schema.SECTIONS):
        assert key in read, f"{stage} reads all of {key.split('.')[0]}, or does not read {key}"


@pytest.mark.parametrize("stage", STAGES)
def test_stages_meet_only_through_files(stage):
    others = {ROOT / "stages" / f"{other}.py" for other in STAGES if other != stage}
    assert transitive(ROOT / "stages" / f"{stage}.py").isdisjoint(others)


def test_core_never_imports_stages():
    stage_files = {ROOT / "stages" / f"{stage}.py" for stage in STAGES}
    for module in CORE.rglob("*.py"):
        assert transitive(module).isdisjoint(stage_files)


def test_one_function_subtracts_the_conditions():
    """The gap is clothed minus semi-nude: `paired.gap` (paired/pairs.py), and no other place."""
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "stages").rglob("*.py"))
        if SUBTRACTION.search(path.read_text())
    ]
    assert found == ["stages/core/paired/pairs.py"]


def test_no_error_of_the_library_ends_the_process():
    """Only entry points exit (`run_command`): what is called in other people's processes raises StudyError."""
    exiting = [
        path.relative_to(CORE).as_posix()
        for path in sorted(CORE.rglob("*.py"))
        if re.search(r"SystemExit|sys\.exit|os\._exit", path.read_text())
    ]
    assert exiting == ["run/errors.py"]
    for stage in STAGES:
        assert "run_command(main)" in (ROOT / "stages" / f"{stage}.py").read_text()


EDITS = {  # what is edited -> stages that DVC finds changed
    "stages/core/ablation/arms.py": {"ablate"},
    "stages/core/data/dataset.py": set(STAGES) - {"prepare_clip", "export_clip"},
    "stages/core/planted/demo.py": {"ingest", "prepare_clip"},
    "stages/core/description/decoder_directions.py": {"describe_latents"},
    "stages/core/schema.py": set(),
    "stages/core/run/labels.py": set(STAGES),
    "stages/__init__.py": set(STAGES),
    "stages/ablate.py": {"ablate"},
}


@pytest.mark.parametrize("edited", EDITS)
def test_an_edit_touches_the_stages_that_declare_it(edited):
    assert {
        stage for stage in STAGES if any((ROOT / edited).is_relative_to(ROOT / dep) for dep in declared_code(stage))
    } == (EDITS[edited])


def missing_grid_lines(dvc: dict, grid: dict) -> list[str]:
    """Lines that dvc.yaml lacks for the grid of params.yaml, each with the place it belongs to."""
    layers, expansions = range(len(grid["layers"])), range(len(grid["expansions"]))
    points = [f"l${{grid.layers[{i}]}}_x${{grid.expansions[{j}]}}" for i in layers for j in expansions]
    stores = [f"data/activations/l${{grid.layers[{i}]}}.zarr" for i in layers]
    wanted = [("select_sae", "deps", f"data/{kind}/{point}") for kind in ("sae", "analysis") for point in points]
    wanted += [("extract", "outs", store) for store in stores]
    wanted += [(stage, "deps", store) for stage in CHOSEN for store in stores]
    return [f"{stage}.{key}: add - {line}" for stage, key, line in wanted if line not in named(dvc[stage][key])]


def test_the_grid_is_spelled_out():
    assert missing_grid_lines(DVC, PARAMS["grid"]) == []
    lines = [str(line) for stage in DVC.values() for key in ("deps", "outs") for line in stage.get(key, [])]
    spelled = [line for line in lines if "${grid" in line]
    n_layers, n_expansions = len(PARAMS["grid"]["layers"]), len(PARAMS["grid"]["expansions"])
    assert len(spelled) == 2 * n_layers * n_expansions + (1 + len(CHOSEN)) * n_layers, (
        "dvc.yaml names grid points params.yaml lacks"
    )


def test_a_grown_grid_names_the_lines_to_add():
    grown = {"layers": [*PARAMS["grid"]["layers"], 9], "expansions": PARAMS["grid"]["expansions"]}
    lines = missing_grid_lines(DVC, grown)
    assert "select_sae.deps: add - data/sae/l${grid.layers[3]}_x${grid.expansions[0]}" in lines
    assert "extract.outs: add - data/activations/l${grid.layers[3]}.zarr" in lines
    assert len(lines) == 2 * len(grown["expansions"]) + 1 + len(CHOSEN)

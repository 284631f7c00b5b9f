"""params.yaml is checked, and every fault names its key and the remedy."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap

import pytest
import yaml

from stages.core import schema
from stages.core.run import params
from stages.core.schema import Grid, World
from stages.studies.apply import STUDIES_DPATH, apply
from tests.imports import ROOT

GOOD = yaml.safe_load((ROOT / "params.yaml").read_text())


def written(tmp_path, change):
    given = yaml.safe_load(yaml.safe_dump(GOOD))
    change(given)
    fpath = tmp_path / "params.yaml"
    fpath.write_text(yaml.safe_dump(given))
    return fpath


def test_the_shipped_file_is_valid():
    params.validate(GOOD)
    assert set(GOOD) == set(schema.SECTIONS)


def test_only_the_sections_asked_for_are_loaded():
    grid = params.load(Grid, fpath=ROOT / "params.yaml")
    assert type(grid) is Grid and grid.layers == GOOD["grid"]["layers"]
    grid, world = params.load(Grid, World, fpath=ROOT / "params.yaml")
    assert type(grid) is Grid and world.n_women == GOOD["world"]["n_women"]


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("train_sae", "steps", 0, "train_sae.steps: Input should be greater than or equal to 1; given 0"),
        ("train_sae", "recipe", "best", "train_sae.recipe: Input should be 'target_l0' or 'published'; given 'best'"),
        ("train_sae", "learning_rate", "3e-4", "write 0.0003"),
        ("train_sae", "stpes", 3, "train_sae.stpes: unknown key; keys are source, recipe, train_on, steps"),
        ("grid", "layers", [2, 2], "layers names a value twice"),
        ("ingest", "prompt", "a woman", "prompt must contain {emotion}"),
        ("extract", "remote", "memory://a", "extract.remote: must be empty, or a URL that starts with one of s3://"),
        ("extract", "remote", "simplecache::s3://a", "given 'simplecache::s3://a'"),
        ("demo", "bias", 1.5, "demo.bias: Input should be less than or equal to 1"),
    ],
)
def test_a_fault_names_key_value_and_remedy(tmp_path, section, key, value, says):
    fpath = written(tmp_path, lambda given: given[section].update({key: value}))
    with pytest.raises(params.ParamsError) as caught:
        params.load(schema.SECTIONS[section], fpath=fpath)
    assert says in str(caught.value)


def test_missing_and_unknown_sections(tmp_path):
    with pytest.raises(params.ParamsError, match="section 'grid' is missing"):
        params.load(Grid, fpath=written(tmp_path, lambda given: given.pop("grid")))
    with pytest.raises(params.ParamsError, match="unknown section 'girds'"):
        params.load(Grid, fpath=written(tmp_path, lambda given: given.update(girds={})))
    with pytest.raises(params.ParamsError, match="run from the top"):
        params.load(Grid, fpath=tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("study", ["paper", "planted"])
def test_a_ready_study_is_written_with_comments_kept(tmp_path, study):
    fpath = tmp_path / "params.yaml"
    fpath.write_text((ROOT / "params.yaml").read_text())
    apply(study, fpath)
    text = fpath.read_text()
    assert text.startswith("# Every knob")
    given = yaml.safe_load(text)
    params.validate(given, fpath)
    overlay = yaml.safe_load((STUDIES_DPATH / f"{study}.yaml").read_text())
    for section, values in overlay.items():
        assert all(given[section][key] == value for key, value in values.items())


def test_switching_to_the_paper_and_back_changes_nothing(tmp_path):
    fpath = tmp_path / "params.yaml"
    fpath.write_text((ROOT / "params.yaml").read_text())
    apply("paper", fpath)
    apply("planted", fpath)
    assert yaml.safe_load(fpath.read_text()) == GOOD


def test_an_unknown_study_is_refused(tmp_path):
    with pytest.raises(params.ParamsError, match="ready studies are paper, planted"):
        apply("nature", tmp_path / "params.yaml")


@pytest.mark.parametrize("section", schema.SECTIONS.values())
def test_every_knob_is_documented(section):
    body = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0].body
    documented = {
        knob.target.id
        for knob, text in itertools.pairwise(body)
        if isinstance(knob, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
    assert documented == set(section.model_fields)

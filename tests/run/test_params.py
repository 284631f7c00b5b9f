"""params.yaml is checked, and every fault names its key and the remedy."""

from __future__ import annotations

import ast
import inspect
import itertools
import os
import subprocess
import sys
import textwrap

import pytest
import yaml
from dvc.utils.serialize import parse_yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

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
        ("train_sae", "learning_rate", "0.0003", "given '0.0003' (without quotes it is a number)"),
        ("train_sae", "stpes", 3, "train_sae.stpes: unknown key; keys are source, recipe, train_on, steps"),
        ("grid", "layers", [2, 2], "grid.layers: names a value twice"),
        ("ingest", "prompt", "a woman", "prompt must contain {emotion}"),
        ("ingest", "emotions", ["<b>", "sad"], "ingest.emotions.0: contains <, which a page takes for markup"),
        ("ingest", "emotions", ["sad", "=1"], "ingest.emotions.1: starts with =, which a spreadsheet takes for"),
        (
            "ingest",
            "emotions",
            ["sad", "sad "],
            "ingest.emotions.1: has spaces around it; leave them out; given 'sad '",
        ),
        ("ingest", "emotions", ["sad", ""], "ingest.emotions.1: is empty"),
        ("ingest", "prompt", "<i>{emotion}</i>", "ingest.prompt: contains <"),
        ("describe_latents", "prompts", ["a", "</script>"], "describe_latents.prompts.1: contains <"),
        ("world", "n_women", 10**9, "world.n_women: Input should be less than or equal to 10000; given 1000000000"),
        ("world", "n_corpus", 10**7, "world.n_corpus: Input should be less than or equal to 1000000"),
        ("demo", "n_portraits", 10**7, "demo.n_portraits: Input should be less than or equal to 1000000"),
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


@pytest.mark.parametrize("prompt", ["it's a woman, {emotion}", "une femme très {emotion}", "a {emotion} woman (1+1)"])
def test_apostrophes_and_other_letters_are_sound_in_a_prompt(tmp_path, prompt):
    loaded = params.load(schema.Ingest, fpath=written(tmp_path, lambda given: given["ingest"].update(prompt=prompt)))
    assert loaded.prompt == prompt


SCALARS = st.text("0123456789abefnostuxyzNY._:+-~ \"'", min_size=1, max_size=8) | st.floats().map(repr)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, derandomize=True)
@given(scalar=SCALARS)
@example("0300")
@example("010")
@example("0o17")
@example("5:00")
@example("3e-4")
@example("yes")
@example("1_000")
@example("2001-01-01")
def test_every_scalar_means_what_dvc_takes_it_for(scalar):
    text = f"world:\n  seed: {scalar}\n"
    try:
        ours = params.parse(text, ROOT / "params.yaml")
    except params.ParamsError:
        ours = "refused"
    try:
        theirs = parse_yaml(text, "params.yaml")
    except Exception:  # DVC wraps some errors of its reader and lets others pass
        theirs = "refused"
    assert repr(ours) == repr(theirs)  # repr: NaN is not equal to itself, and 1 is equal to True


def test_octal_and_sexagesimal_numbers_are_those_of_yaml_1_2(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    fpath = tmp_path / "params.yaml"
    fpath.write_text(text.replace("n_women: 80", "n_women: 0300"))
    assert params.load(World, fpath=fpath).n_women == 300
    fpath.write_text(text.replace("n_women: 80", "n_women: 5:00"))
    with pytest.raises(params.ParamsError, match=r"world\.n_women: Input should be a valid integer; given '5:00'"):
        params.load(World, fpath=fpath)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("world:\n  seed: 1\n  n_women: 8\n  seed: 2\n", 'key "seed" stands twice, the second time in line 4'),
        ("grid: {}\nworld: {}\ngrid: {}\n", 'key "grid" stands twice, the second time in line 3'),
        ("a: " + "[" * 200_000 + "]" * 200_000, "more than 100 brackets in each other"),
    ],
)
def test_what_one_reader_would_take_and_another_not_is_refused(tmp_path, text, says):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(params.ParamsError, match=says):
        params.load(World, fpath=tmp_path / "params.yaml")


@pytest.mark.slow
def test_the_file_is_utf_8_whatever_the_language_of_the_machine(tmp_path):
    (tmp_path / "params.yaml").write_bytes("ingest: {prompt: é}".encode())
    code = "from stages.core.run import params; print(ascii(params.read(params.Path('params.yaml'))))"
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout == "{'ingest': {'prompt': '\\xe9'}}\n", done.stderr


def test_missing_and_unknown_sections(tmp_path):
    with pytest.raises(params.ParamsError, match="section 'grid' is missing"):
        params.load(Grid, fpath=written(tmp_path, lambda given: given.pop("grid")))
    with pytest.raises(params.ParamsError, match="unknown section 'girds'"):
        params.load(Grid, fpath=written(tmp_path, lambda given: given.update(girds={})))
    with pytest.raises(params.ParamsError, match="run from the top"):
        params.load(Grid, fpath=tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("study", ["paper", "planted", "sobem", "twenty"])
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


@pytest.mark.parametrize(("before", "after"), itertools.permutations(["paper", "planted", "sobem", "twenty"], 2))
def test_nothing_of_another_study_is_left(tmp_path, before, after):
    at_once, fpath = tmp_path / "at_once.yaml", tmp_path / "params.yaml"
    for place, studies in ((at_once, [after]), (fpath, [before, after])):
        place.write_text((ROOT / "params.yaml").read_text())
        for study in studies:
            apply(study, place)
    assert yaml.safe_load(fpath.read_text()) == yaml.safe_load(at_once.read_text())
    if after == "planted":
        assert yaml.safe_load(fpath.read_text()) == GOOD


def test_the_default_study_names_every_key_that_another_changes():
    def keys(study: str) -> set[tuple[str, str]]:
        sections = yaml.safe_load((STUDIES_DPATH / f"{study}.yaml").read_text())
        return {(section, key) for section, values in sections.items() for key in values}

    for study in ("paper", "sobem", "twenty"):
        assert keys(study) <= keys("planted")


def test_it_is_said_what_a_ready_study_changes(tmp_path, capsys):
    fpath = tmp_path / "params.yaml"
    fpath.write_text((ROOT / "params.yaml").read_text())
    apply("paper", fpath)
    said = capsys.readouterr().out.splitlines()
    assert "train_sae.steps: 300 -> 10000" in said and "grid.layers: [2, 3, 4] -> [22, 23, 24]" in said
    assert not any(line.startswith("compute.device") for line in said)  # as it was
    apply("paper", fpath)
    assert capsys.readouterr().out == "params.yaml has the values of the study paper already\n"


def test_an_unknown_study_is_refused(tmp_path):
    with pytest.raises(params.ParamsError, match="ready studies are paper, planted, sobem, twenty"):
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

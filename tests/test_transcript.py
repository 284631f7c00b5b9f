"""The tour of the README: one parameter changed, and the difference read, by the script that made the page."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

from tests.studies import ENV, GIT_ENV, ran, run, stage_names

CHANGE = "analyse_sae.n_checked=2"  # a metric of every SAE changes, whichever is chosen, and none is trained again


def test_the_page_is_made_and_everything_put_back(studies, tmp_path):
    folder = shutil.copytree(studies["folder"], tmp_path / "study")  # two SAEs, not nine
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "run")
    run(folder, sys.executable, "-m", "stages.studies.transcript", CHANGE)
    page = (folder / "stages" / "studies" / "transcript.md").read_text()
    after_selection = {
        "select_sae",
        "check_stability",
        "describe_latents",
        "heatmap",
        "ablate",
        "export_clip",
        "report",
    }
    analyses = {name for name in stage_names(folder) if name.startswith("analyse_sae@")}
    assert analyses | {"select_sae"} <= ran(page) <= analyses | after_selection
    assert "analyse_sae.n_checked" in page and str(folder) not in page
    finding = page.split("$ dvc metrics diff --targets metrics/ablate.json\n")[1].split("```")[0].splitlines()
    assert all(line.startswith(("Path", "metrics/ablate.json")) for line in finding if line)
    difference = page.split("$ dvc metrics diff --recursive")[1].split("```")[0].splitlines()
    assert len(difference) < 120
    for metrics in (folder / "metrics" / "analyse_sae").iterdir():
        assert any(f"metrics/analyse_sae/{metrics.name}" in line for line in difference)
    plots = (folder / "dvc_plots" / "index.html").read_text()
    assert '"rev": "HEAD"' in plots and '"rev": "workspace"' in plots
    assert json.loads(run(folder, "dvc", "status", "--json")) == {}
    left = run(folder, "git", "status", "--porcelain").split()
    assert left[1:] == ["stages/studies/transcript.md"]


def test_a_tree_with_changes_is_left_alone(studies):
    command = [sys.executable, "-m", "stages.studies.transcript", CHANGE]
    done = subprocess.run(
        command, cwd=studies["synthetic"], env=ENV | GIT_ENV, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0 and "git status is not clean" in done.stderr

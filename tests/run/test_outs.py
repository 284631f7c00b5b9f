"""Outputs are whole, or not there and what was before them is."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import zarr

from stages.core.run import outs
from tests.imports import ROOT
from tests.studies import ENV


def test_a_file_and_a_folder_take_the_place_of_what_was_there(tmp_path):
    for text in ("old", "new"):
        with outs.atomic_output(tmp_path / "folder" / "file.txt") as unfinished:
            unfinished.write_text(text)
        with outs.atomic_output(tmp_path / "tree") as unfinished:
            unfinished.mkdir()
            (unfinished / text).write_text(text)
    assert (tmp_path / "folder" / "file.txt").read_text() == "new"
    assert [p.name for p in (tmp_path / "tree").iterdir()] == ["new"]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file.txt", "folder", "new", "tree"]


def test_a_file_takes_the_place_of_a_folder_and_a_folder_that_of_a_file(tmp_path):
    (tmp_path / "a").mkdir()
    with outs.atomic_output(tmp_path / "a") as unfinished:
        unfinished.write_text("file")
    assert (tmp_path / "a").read_text() == "file"
    with outs.atomic_output(tmp_path / "a") as unfinished:
        unfinished.mkdir()
    assert (tmp_path / "a").is_dir() and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_with_content_is_kept_from_a_file(tmp_path):
    (tmp_path / "m.json").mkdir()
    (tmp_path / "m.json" / "notes.txt").write_text("mine")
    with pytest.raises(outs.OutputError, match=r"m\.json is a folder with content, and a file belongs there"):
        outs.write_metrics(tmp_path / "m.json", {"a": 1})
    assert [p.name for p in tmp_path.rglob("*")] == ["m.json", "notes.txt"]


def test_an_array_may_give_way_to_a_file_and_a_link_to_a_folder_too(tmp_path):
    """A store of activations becomes a file that points to another place; what a link leads to is kept."""
    zarr.create_group(tmp_path / "array")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("array", "link"):
        outs.write_metrics(tmp_path / name, {"a": 1})
        assert outs.read_metrics(tmp_path / name, "extract") == {"a": 1}
    assert (tmp_path / "elsewhere" / "notes.txt").read_text() == "mine"


def test_a_place_whose_name_is_not_utf8(tmp_path):
    folder = tmp_path / os.fsdecode(b"latin-1 \xe9")
    outs.write_metrics(folder / "m.json", {"a": 1})
    assert outs.read_metrics(folder / "m.json", "ablate") == {"a": 1}


def test_files_that_threads_write_after_an_error_are_removed_too(tmp_path):
    """Zarr writes the chunks of an array in threads: one may fail while others are under way."""
    unfinished = outs.unfinished_path(tmp_path / "tree")

    def write_late() -> None:
        time.sleep(0.03)
        (unfinished / "c").mkdir(parents=True, exist_ok=True)
        (unfinished / "c" / "1").write_text("chunk")

    late = threading.Thread(target=write_late)
    with pytest.raises(RuntimeError, match="half way"), outs.atomic_output(tmp_path / "tree"):
        (unfinished / "c").mkdir(parents=True)
        late.start()
        raise RuntimeError("half way")
    late.join()
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_what_was_there(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    with pytest.raises(RuntimeError, match="half way"), outs.atomic_output(tmp_path / "file.txt") as unfinished:
        unfinished.write_text("ne")
        raise RuntimeError("half way")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file.txt", "old")]


def test_what_a_killed_run_began_is_removed_by_the_next(tmp_path):
    begun = outs.unfinished_path(tmp_path / "tree")
    begun.mkdir()
    (begun / "half").write_text("x")
    with outs.atomic_output(tmp_path / "tree") as unfinished:
        assert not unfinished.exists()
        unfinished.mkdir()
    assert [p.name for p in tmp_path.rglob("*")] == ["tree"]


def test_a_folder_stays_where_nothing_was_written_to_replace_it(tmp_path):
    (tmp_path / "tree").mkdir()
    with pytest.raises(FileNotFoundError), outs.atomic_output(tmp_path / "tree"):
        pass
    assert (tmp_path / "tree").is_dir()


def test_at_each_moment_of_a_replacement_the_old_folder_or_the_new_one_is_whole(tmp_path, monkeypatch):
    whole = []

    def watched(change):
        def changes(path, *others):
            change(path, *others)
            whole.append([(p / "name").exists() for p in tmp_path.iterdir()])

        return changes

    for name in ("old", "new"):
        with outs.atomic_output(tmp_path / "tree") as unfinished:
            unfinished.mkdir()
            (unfinished / "name").write_text(name)
            if name == "new":
                monkeypatch.setattr(outs.Path, "rename", watched(outs.Path.rename))
    assert (tmp_path / "tree" / "name").read_text() == "new"
    assert whole == [[True, True], [True, True]]
    (tmp_path / ".part.former.tree").mkdir()  # as a kill before the last step leaves it
    with outs.atomic_output(tmp_path / "tree") as unfinished:
        unfinished.mkdir()
    assert [p.name for p in tmp_path.iterdir()] == ["tree"]


def test_a_folder_killed_between_its_two_renames_is_put_back(tmp_path):
    (tmp_path / ".part.former.tree").mkdir()
    with pytest.raises(outs.DiskFull), outs.atomic_output(tmp_path / "tree"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [p.name for p in tmp_path.iterdir()] == ["tree"]


@pytest.mark.parametrize("text", [None, "{", "[1]", '{"a": Infinity}', '{"a": [1]}', '{"a": "much"}'])
def test_metrics_that_no_stage_wrote_are_refused_by_name(tmp_path, text):
    if text is not None:
        (tmp_path / "ablate.json").write_text(text)
    with pytest.raises(outs.UnreadableError, match=r"ablate\.json is missing or damaged.*dvc repro --force ablate"):
        outs.read_metrics(tmp_path / "ablate.json", "ablate")


def test_a_table_that_is_missing_is_named(tmp_path):
    with pytest.raises(outs.UnreadableError, match=r"history\.csv is missing or damaged.*dvc repro --force train_sae"):
        outs.read_table(tmp_path / "history.csv", "train_sae", ["step"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epoch,loss\n1,2\n", "no column step"),
        ("step\nfirst\n", "column step holds text"),
        ("step\n", "0 rows"),
        ("", "No columns to parse"),
        ("step\n1\n2,3,4\n", "Expected 1 fields"),
        ("step,loss\n1,2,3\n", "rows have more fields than the header"),
        ("step,loss\n1,2\n,3\n", "column step holds a value that is no finite number"),
        ("step\ninf\n", "column step holds a value that is no finite number"),
        ("\0" * 50, "no column step"),
    ],
)
def test_a_table_of_another_program_is_refused(tmp_path, text, says):
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(outs.UnreadableError, match=rf"history\.csv is missing or damaged \(.*{says}"):
        outs.read_table(tmp_path / "history.csv", "train_sae", ["step"])


def test_a_table_may_have_gaps_other_columns_and_no_rows_where_that_is_agreed(tmp_path):
    (tmp_path / "history.csv").write_text("step,name\n1,a\n,b\n")
    found = outs.read_table(tmp_path / "history.csv", "train_sae", [], with_gaps=["step"], text=["name"])
    assert found["name"].tolist() == ["a", "b"]
    (tmp_path / "history.csv").write_text("step,name\n")
    assert outs.read_table(tmp_path / "history.csv", "train_sae", ["step"], text=["name"], least_rows=0).empty


@pytest.mark.parametrize(("text", "missing"), [("{}", "edit"), ('{"edit": {"R": {}}}', "edit.R.low")])
def test_a_key_that_is_missing_is_named_when_it_is_looked_up(tmp_path, text, missing):
    (tmp_path / "ablate.json").write_text(text)
    found = outs.read_metrics(tmp_path / "ablate.json", "ablate")
    assert "accuracy" not in found and found.get("accuracy", 7) == 7
    with pytest.raises(outs.UnreadableError, match=rf"ablate\.json lacks {missing}; rerun `dvc repro --force ablate`"):
        _ = found["edit"]["R"]["low"]


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "ablate.json")
    with pytest.raises(outs.UnreadableError, match=r"ablate\.json is missing or damaged \(no such file\)"):
        outs.read_metrics(tmp_path / "ablate.json", "ablate")


def test_a_second_writer_waits_for_the_first(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(outs, "SECONDS_BEFORE_WORD", 0.1)
    second = threading.Thread(target=lambda: outs.write_metrics(tmp_path / "m.json", {"a": 2}))
    with outs.atomic_output(tmp_path / "m.json") as unfinished:
        second.start()
        second.join(0.3)
        assert second.is_alive()
        assert "m.json: waiting for another process" in capsys.readouterr().err
        unfinished.write_text("first")
    second.join(10)
    assert outs.read_json(tmp_path / "m.json", "ablate") == {"a": 2}


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "file.txt does not fit: .* MiB are free there. Make space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the quota of this user is used up"),
        (OSError(errno.EFBIG, "File too large"), "its file system limits how large a file may be"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "does not fit: .* MiB are free there. Make"),
        (RuntimeError("I/O error: File too large (os error 27)"), "its file system limits how large a file may be"),
    ],
)
def test_the_limit_that_is_reached_is_the_one_named(tmp_path, error, says):
    with pytest.raises(outs.DiskFull, match=says), outs.atomic_output(tmp_path / "file.txt"):
        raise error


def test_a_limit_on_the_size_of_files_is_not_called_a_full_disk(tmp_path):
    """`ulimit -f` of one block, in a process of its own."""
    command = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024));"
        "from pathlib import Path; from stages.core.run import outs; from stages.core.run.errors import run_command;"
        "run_command(lambda: outs.write_metrics(Path('m.json'), {str(i): i for i in range(999)}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=tmp_path,
        env=ENV | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "`ulimit -f` limits to 1,024 bytes how large a file may be" in done.stderr
    assert "Traceback" not in done.stderr and "Make space" not in done.stderr
    assert not (tmp_path / "m.json").exists()


def test_a_disk_without_room_for_more_files_says_so(tmp_path, monkeypatch):
    full = SimpleNamespace(f_bavail=2**20, f_frsize=4096, f_files=100, f_favail=0)
    monkeypatch.setattr(outs.os, "statvfs", lambda path: full)
    says = r"no more files can be made there \(4,096\.0 MiB are free there\)"
    with pytest.raises(outs.DiskFull, match=says), outs.naming_full_disk(tmp_path / "file.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(OSError, match="denied"), outs.atomic_output(tmp_path / "file.txt"):
        raise PermissionError(errno.EACCES, "denied")


def test_metrics_are_nested_numbers(tmp_path):
    fpath = tmp_path / "metrics" / "stage.json"
    outs.write_metrics(fpath, {"a": {"b": 1, "c": 0.5}})
    assert json.loads(fpath.read_text()) == {"a": {"b": 1, "c": 0.5}}


@pytest.mark.parametrize("value", [None, "text", [1.0], True, float("nan"), float("inf")])
def test_what_dvc_would_drop_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match=r"stage\.a\.b"):
        outs.write_metrics(tmp_path / "stage.json", {"a": {"b": value}})

"""What the machine refuses is one sentence with place and remedy; a fault of the program keeps its traceback."""

from __future__ import annotations

import errno
import os
import sys

import numpy as np
import pytest
import torch

from stages.core.run import faults
from stages.core.run.errors import StudyError, run_command
from tests.imports import ROOT
from tests.rights import can_be_held, without_privileges
from tests.studies import ENV


def system_error(code: int, *names: str) -> OSError:
    first, second = (*names, None, None)[:2]
    return OSError(code, os.strerror(code), first, None, second)


def says(error: BaseException) -> str:
    """What a command that meets this error says as it ends with status 1."""

    def meet() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_command(meet)
    assert isinstance(ended.value.code, str)  # which Python prints, and ends with status 1
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (system_error(errno.EACCES, "data/clip"), ["data/clip: Permission denied", "change its rights"]),
        (system_error(errno.EROFS, "metrics"), ["metrics: Read-only file system", "mount"]),
        (system_error(errno.EXDEV, "a", "b"), ["a: b: Invalid cross-device link", "check that path"]),
        (system_error(errno.ENOENT, "data/raw"), ["data/raw: No such file", "dvc repro"]),
        (system_error(errno.EMFILE), ["Too many open files", "ulimit -n"]),
        (system_error(errno.ENOSPC, "/dev/full"), ["/dev/full: No space left on device", "make space"]),
        (OSError("the line is down"), ["the line is down"]),
        (OSError(), ["OSError"]),
        (UnicodeEncodeError("ascii", "data/é", 5, 6, "ordinal not in range(128)"), ["'data/\\xe9'", "ascii", "UTF-8"]),
        (UnicodeDecodeError("utf-8", b"\xff.jpg", 0, 1, "invalid start byte"), ["b'\\xff.jpg'", "rename or rewrite"]),
        (MemoryError(), ["Out of memory (MemoryError)", "batch_size", "n_bootstrap", "memory_gib"]),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), ["Out of memory ([enforce fail]"]),
        (RuntimeError("std::bad_alloc"), ["Out of memory (std::bad_alloc)"]),
        (torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB.\nSee"), ["(CUDA out of memory. Tried 2 GiB.)"]),
        (RuntimeError("can't start new thread"), ["No thread can be started", "ulimit -u"]),
        (RuntimeError("[../gloo/pair.cc:5] Connection closed by peer [::1]:7"), ["Another process", "closed by peer"]),
        (StudyError("grid.layers: no such layer"), ["grid.layers: no such layer"]),
    ],
)
def test_what_is_refused_is_one_sentence(error, words):
    said = says(error)
    assert "\n" not in said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    "error", [KeyError("a"), ValueError("b"), TypeError("c"), AssertionError("d"), RuntimeError("shapes differ")]
)
def test_a_fault_of_the_program_is_not_hidden(error):
    assert faults.in_words(error) is None

    def meet() -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        run_command(meet)


@pytest.mark.parametrize("ask", [lambda: np.empty(2**58), lambda: torch.empty(2**58)])
def test_numpy_and_torch_are_understood_when_memory_is_used_up(ask):
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        ask()
    assert faults.out_of_memory(caught.value)


def test_damage_to_a_file_is_no_fault_of_the_machine():
    assert not faults.of_machine(system_error(errno.ENOENT, "a"))
    assert not faults.of_machine(ValueError("not JSON"))
    assert faults.of_machine(system_error(errno.EACCES, "a"))
    assert faults.of_machine(MemoryError())


READ = {
    "an SAE's weights": "from stages.core.sae import JumpReLUSAE as S; S.load(Path('sae'))",
    "a table": "from stages.core.run import outs; outs.read_table(Path('sae/table.csv'), 'train_sae', ['step'])",
    "a checkpoint": "from stages.core.training.checkpoint import Checkpoint as C; C(Path('sae')).load()",
}
UNREADABLE = {
    "an SAE's weights": "sae_weights.safetensors",
    "a table": "table.csv",
    "a checkpoint": "state.safetensors",
}


@pytest.mark.slow
# root may read any file, so no file is unreadable to a test that runs as root and cannot give up its rights
@pytest.mark.skipif(not can_be_held(), reason="no setpriv here, and root may read everything")
@pytest.mark.parametrize("kind", READ)
def test_a_file_that_may_not_be_read_is_not_called_missing(tmp_path, tiny_sae, kind):
    tiny_sae.save(tmp_path / "sae")
    (tmp_path / "sae" / "table.csv").write_text("step\n1\n")
    (tmp_path / "sae" / "state.safetensors").write_bytes((tmp_path / "sae" / "sae_weights.safetensors").read_bytes())
    (tmp_path / "sae" / UNREADABLE[kind]).chmod(0)
    code = (
        "from pathlib import Path; from stages.core.run.errors import run_command\n"
        f"def main(): {READ[kind]}\nrun_command(main)"
    )
    done = without_privileges([sys.executable, "-c", code], tmp_path, env=ENV | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1
    assert done.stderr == f"sae/{UNREADABLE[kind]}: Permission denied; {faults.RIGHTS}\n"

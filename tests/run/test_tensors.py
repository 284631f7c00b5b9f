"""Tensors on disk."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors import SafetensorError

from stages.core.run import tensors


def test_what_is_written_is_read(tmp_path):
    given = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}
    tensors.write(tmp_path / "t.safetensors", given, {"note": "é"})
    found, metadata = tensors.read(tmp_path / "t.safetensors")
    assert found.keys() == given.keys() and all(torch.equal(found[name], given[name]) for name in given)
    assert metadata == {"note": "é"}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_file_has_the_rights_of_any_new_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        tensors.write(tmp_path / "t.safetensors", {"a": torch.ones(1)})
    finally:
        os.umask(before)
    assert (tmp_path / "t.safetensors").stat().st_mode & 0o777 == mode


def test_what_is_no_such_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        tensors.read(tmp_path / "t.safetensors")
    (tmp_path / "t.safetensors").write_text("x")
    with pytest.raises(SafetensorError):
        tensors.read(tmp_path / "t.safetensors")

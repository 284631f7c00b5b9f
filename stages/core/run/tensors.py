"""Tensors by name in a safetensors file, which holds numbers and no code."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def write(fpath: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors to `fpath`. Whoever may read other new files may read this one: safetensors alone lets nobody else.

    metadata: texts by name that are kept in the file.
    """
    fpath.touch()
    mode = fpath.stat().st_mode
    save_file(tensors, fpath, metadata)
    fpath.chmod(mode)


def read(fpath: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors of a file, onto the CPU. Returns the tensors and the metadata, both by name.

    Raises OSError if the file is missing or may not be read, SafetensorError if it is damaged.
    """
    fpath.open("rb").close()  # safetensors says "no such file" of a file that may not be read
    with safe_open(fpath, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return tensors, file.metadata() or {}

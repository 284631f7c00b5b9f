"""What an input of the stages is, how it was damaged, and what those of all kinds share."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import matplotlib.font_manager  # noqa: F401 (it writes its cache when it is first imported)
import numpy as np
import yaml
from numpy.random import Generator

from tests.imports import ROOT

D_IN, D_SAE, N_IMAGES, SIDE = 8, 16, 5, 16


@dataclass(frozen=True)
class Damage:
    """What was done to an input."""

    what: str
    named: tuple[str, ...]
    """Words one of which a refusal must hold."""
    must_show: bool = False
    """Whether it is a failure if anything is accepted but the sound content, or NOTHING."""


@dataclass(frozen=True)
class Input:
    """One kind of input, in a folder of its own that is the working directory of all three."""

    make: Callable[[], None]
    damage: Callable[[Generator], Damage]
    use: Callable[[], str]
    """Reads it as the stages do. Returns a digest of what was read; raises AssertionError if that is not sound."""
    outs: tuple[str, ...] = ()


def digest(*arrays: Any) -> str:
    """Digest of arrays and their types. Each must hold at least one number, and finite numbers only."""
    found = hashlib.sha256()
    for array in map(np.asarray, arrays):
        assert array.size and np.isfinite(array).all(), f"{array.shape} {array.dtype}: not finite, or empty"
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


NOTHING = digest()


def write_params(**changes: dict[str, Any]) -> None:
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in changes.items():
        given[section].update(values)
    Path("params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))


def run(stage: ModuleType, *arguments: str) -> None:
    """A stage as its command line starts it."""
    with mock.patch.object(sys, "argv", [stage.__name__, *arguments]):
        stage.main()

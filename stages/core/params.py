"""params.yaml, read and validated (its knobs: `core/sections.py`); and what a stage is told on its command line.

    params = load("compute", "extract")      # the sections a stage declares in dvc.yaml, no others
    params.extract.batch_size

A stage of the grid is told on its command line which `Point` it is of; `python -m stages.<stage> --help` says what any
stage reads, writes and claims.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stages.core.sections import SECTIONS, Section

PARAMS_FPATH = Path("params.yaml")


class ParamsError(SystemExit):
    """params.yaml holds something a stage cannot use. Exits with the key, what was given and what is allowed."""


@dataclass(frozen=True)
class Point:
    """A point of the grid: one SAE."""

    layer: int
    """Block of the vision tower, counted from 1."""
    expansion: int
    """d_sae / d_in."""

    def __str__(self) -> str:
        """As in file names: l22_x16."""
        return f"l{self.layer}_x{self.expansion}"

    @classmethod
    def from_command_line(cls, description: str | None) -> Point:
        """Read --layer and --expansion."""
        parser = command_line(description)
        parser.add_argument("--layer", type=int, required=True, help="block of the vision tower, counted from 1")
        parser.add_argument("--expansion", type=int, required=True, help="d_sae / d_in")
        return cls(**vars(parser.parse_args()))


def command_line(description: str | None) -> argparse.ArgumentParser:
    """The command line of a stage, whose --help is the docstring of its module."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def load(*sections: str, fpath: Path = PARAMS_FPATH) -> Any:
    """The named sections of params.yaml, validated, as attributes of one frozen object."""
    given = read(fpath)
    check_names(given, sections, fpath)
    values = {name: _validated(name, given[name], fpath) for name in sections}
    return make_dataclass("Params", sections, frozen=True)(**values)


def validate(params: dict[Any, Any], fpath: Path = PARAMS_FPATH) -> None:
    """Check every section at once, as `load` would."""
    check_names(params, tuple(SECTIONS), fpath)
    for name in SECTIONS:
        _validated(name, params[name], fpath)


def check_names(given: dict[Any, Any], sections: tuple[str, ...], fpath: Path) -> None:
    """Raise ParamsError for a section that there is not, or that is missing of those wanted."""
    unknown = sorted(set(given) - set(SECTIONS), key=str)
    if unknown:
        raise ParamsError(f"{fpath}: unknown section {unknown[0]!r}; sections are {', '.join(SECTIONS)}")
    missing = [name for name in sections if name not in given]
    if missing:
        raise ParamsError(f"{fpath}: section {missing[0]!r} is missing; add it (see stages/core/sections.py)")


def _validated(name: str, given: Any, fpath: Path) -> Section:
    try:
        return SECTIONS[name].model_validate(given)
    except ValidationError as error:
        lines = [f"{fpath}: {len(error.errors())} fault(s) in section {name!r}"]
        for fault in error.errors():
            key = ".".join([name, *map(str, fault["loc"])])
            lines.append(f"  {key}: {_remedy(fault, SECTIONS[name])}")
        raise ParamsError("\n".join(lines)) from None


def _remedy(fault: Any, cls: type[Section]) -> str:
    if fault["type"] == "extra_forbidden":
        return f"unknown key; keys are {', '.join(cls.model_fields)}"
    if fault["type"] == "missing":
        return "missing; add it"
    message = fault["msg"].removeprefix("Value error, ")
    hint = " (YAML reads 3e-4 as text: write 0.0003)" if isinstance(fault["input"], str) and "number" in message else ""
    return f"{message}; given {fault['input']!r}{hint}"


def read(fpath: Path) -> dict[Any, Any]:
    """The sections of a file, as given. Raises ParamsError."""
    try:
        return parse(fpath.read_text(), fpath)
    except FileNotFoundError:
        raise ParamsError(f"{fpath} not found: run from the top of the repository") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{fpath} cannot be read: {error}") from None


def parse(text: str, fpath: Path) -> dict[Any, Any]:
    """The sections in a text that is, or will be, in a file. Raises ParamsError."""
    import yaml

    try:
        if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ParamsError(f"{fpath}: aliases (*name) are not read; write out what they stand for")
        given = yaml.safe_load(text)
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # of the last two: 2026-13-01, and a thousand brackets
        raise ParamsError(f"{fpath} is not YAML: {error}") from None
    if not isinstance(given, dict):
        raise ParamsError(f"{fpath}: expected sections, found {type(given).__name__}")
    return given

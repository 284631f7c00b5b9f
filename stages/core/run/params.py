"""params.yaml, read and validated (`core/schema.py` documents each knob), and the command line of a stage.

    compute, extract = params.load(Compute, Extract)      # the sections that the stage declares in dvc.yaml, no others
    extract.batch_size

A stage of the grid reads from its command line which `Point` of the grid it works on. `python -m stages.<stage> --help`
says what a stage reads, writes and claims.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar, overload

from pydantic import ValidationError

from stages.core.run import inputs
from stages.core.run.errors import StudyError
from stages.core.schema import SECTIONS, Section

PARAMS_FPATH = Path("params.yaml")
MAX_DEPTH = 100  # lists and mappings in each other; params.yaml needs three
NAMES = {section: name for name, section in SECTIONS.items()}

A = TypeVar("A", bound=Section)
B = TypeVar("B", bound=Section)
C = TypeVar("C", bound=Section)
D = TypeVar("D", bound=Section)
E = TypeVar("E", bound=Section)


class ParamsError(StudyError):
    """params.yaml holds something a stage cannot use. The message names the key, what was given and what is allowed."""


@dataclass(frozen=True)
class Point:
    """Layer and expansion of one SAE. Section `grid` of params.yaml lists the layers and expansions to train."""

    layer: int
    """Block of the vision tower, counted from 1."""
    expansion: int
    """d_sae / d_in: number of latents per dimension of a token."""

    def __str__(self) -> str:
        """Return the name that file names use, such as l22_x16."""
        return f"l{self.layer}_x{self.expansion}"

    @classmethod
    def from_command_line(cls, description: str | None) -> Point:
        """Return the layer and expansion that the options --layer and --expansion of the command line give.

        A missing or wrong option ends the process, with a message that shows how to call the command.
        description: text that --help shows.
        """
        parser = command_line(description)
        parser.add_argument("--layer", type=int, required=True, help="block of the vision tower, counted from 1")
        parser.add_argument("--expansion", type=int, required=True, help="d_sae / d_in")
        return cls(**vars(parser.parse_args()))


def command_line(description: str | None) -> argparse.ArgumentParser:
    """Return a parser for the command line of a stage, without options yet.

    description: text that --help shows, such as the module docstring of the stage. Its line breaks are kept.
    """
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


@overload
def load(a: type[A], /, *, fpath: Path = ...) -> A: ...
@overload
def load(a: type[A], b: type[B], /, *, fpath: Path = ...) -> tuple[A, B]: ...
@overload
def load(a: type[A], b: type[B], c: type[C], /, *, fpath: Path = ...) -> tuple[A, B, C]: ...
@overload
def load(a: type[A], b: type[B], c: type[C], d: type[D], /, *, fpath: Path = ...) -> tuple[A, B, C, D]: ...
@overload
def load(
    a: type[A], b: type[B], c: type[C], d: type[D], e: type[E], /, *, fpath: Path = ...
) -> tuple[A, B, C, D, E]: ...
def load(*sections: type[Section], fpath: Path = PARAMS_FPATH) -> Any:
    """Read sections of params.yaml and validate them.

    sections: classes of `stages/core/schema.py`, such as `Compute` for the section `compute`.
    fpath: the file to read.
    Returns a frozen object of the class. For several classes, returns a tuple of objects, in the order of `sections`.
    Raises ParamsError if a section is unknown or missing, or if a key or value in a section is wrong.
    """
    given = _parsed(text(fpath), fpath)
    names = tuple(NAMES[section] for section in sections)
    check_names(given, names, fpath)
    inputs.remember(
        f"{fpath} (sections {', '.join(names)})",
        partial(_sections, fpath, names),
        [given[name] for name in names],
    )
    values = tuple(_validated(name, given[name], fpath) for name in names)
    return values[0] if len(values) == 1 else values


def validate(params: dict[Any, Any], fpath: Path = PARAMS_FPATH) -> None:
    """Check that all sections of params.yaml are present and valid.

    params: content of the file: settings by section. fpath: path that messages name. The file is not read.
    Raises ParamsError if a section is unknown or missing, or if a key or value in a section is wrong.
    """
    check_names(params, tuple(SECTIONS), fpath)
    for name in SECTIONS:
        _validated(name, params[name], fpath)


def check_names(given: dict[Any, Any], sections: tuple[str, ...], fpath: Path) -> None:
    """Check the names of the sections of params.yaml. The settings inside the sections are not checked.

    given: content of the file: settings by section. sections: names that must be present.
    fpath: path that messages name. The file is not read.
    Raises ParamsError if `given` has an unknown section or lacks one of `sections`.
    """
    unknown = sorted(set(given) - set(SECTIONS), key=str)
    if unknown:
        raise ParamsError(f"{fpath}: unknown section {unknown[0]!r}; sections are {', '.join(SECTIONS)}")
    missing = [name for name in sections if name not in given]
    if missing:
        raise ParamsError(f"{fpath}: section {missing[0]!r} is missing; add it (see stages/core/schema.py)")


def _sections(fpath: Path, names: tuple[str, ...]) -> list[Any]:
    """Sections of params.yaml as they stand there now; an empty list if the file cannot be read."""
    try:
        given = _parsed(text(fpath), fpath)
    except ParamsError:
        return []
    return [given.get(name) for name in names]


@lru_cache(maxsize=2)
def _parsed(text: str, fpath: Path) -> dict[Any, Any]:
    """`parse`, which takes longer than all else here, once for each text. Nobody may change the result."""
    return parse(text, fpath)


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
    hint = " (without quotes it is a number)" if _is_quoted_number(fault["input"]) else ""
    return f"{message}; given {fault['input']!r}{hint}"


def _is_quoted_number(given: Any) -> bool:
    try:
        return isinstance(given, str) and math.isfinite(float(given))
    except ValueError:
        return False


def read(fpath: Path) -> dict[Any, Any]:
    """Read the file `fpath` without validating it. Returns the settings by section.

    Raises ParamsError if the file cannot be read or does not hold YAML sections.
    """
    return parse(text(fpath), fpath)


def text(fpath: Path = PARAMS_FPATH) -> str:
    """Return the whole text of the file `fpath`. Raises ParamsError if the file cannot be read."""
    try:
        return fpath.read_text("utf-8")
    except FileNotFoundError:
        raise ParamsError(f"{fpath} not found: run from the top of the repository") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{fpath} cannot be read: {error}") from None


def parse(text: str, fpath: Path) -> dict[Any, Any]:
    """Parse YAML text as DVC does, without validating it. Returns the settings by section.

    DVC reads YAML 1.2 with ruamel.yaml. Another reader would give some values another meaning: 010 is 10 here, and was
    8 in YAML 1.1; 5:00 is a text here, and was 300.
    text: content of the file. fpath: path that messages name. The file is not read.
    Raises ParamsError if `text` is not YAML, does not hold sections, has a key twice, is nested deeply, or uses aliases
    (`*name`). DVC reads aliases, but a few nested ones stand for more values than a message or a memory can hold.
    """
    from ruamel.yaml import YAML, YAMLError
    from ruamel.yaml.constructor import DuplicateKeyError

    try:
        _check_events(YAML(typ="safe").parse(text), fpath)
        given = YAML(typ="safe").load(text)
    except DuplicateKeyError as error:
        raise ParamsError(f"{fpath}: {_twice(error)}") from None
    except (YAMLError, ValueError) as error:  # 2026-13-01 is a ValueError
        raise ParamsError(f"{fpath} is not YAML: {error}") from None
    if not isinstance(given, dict):
        raise ParamsError(f"{fpath}: expected sections, found {type(given).__name__}")
    return given


def _check_events(events: Any, fpath: Path) -> None:
    """Refuse aliases and deep nesting before anything is built. ruamel.yaml's C code crashes on 100,000 brackets."""
    from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

    depth = 0
    for event in events:
        if isinstance(event, AliasEvent):
            raise ParamsError(f"{fpath}: aliases (*name) are not read; write out what they stand for")
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ParamsError(
                f"{fpath}: more than {MAX_DEPTH} brackets in each other; sections hold keys and lists only"
            )


def _twice(error: Any) -> str:
    """The sentence about a key that stands twice: ruamel.yaml gives the key in quotes, and its second place."""
    key = str(error.problem).removeprefix("found duplicate key ").partition(" with value ")[0]
    return f"key {key} stands twice, the second time in line {error.problem_mark.line + 1}; remove one"

"""Damage to files, values and trees of values, each drawn from a generator: the same seed, the same damage."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

from numpy.random import Generator

MARKER = "code-was-run"  # the file that a pickle makes where it is executed
NOISE: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 7, 2**31, 2**63, 10**30, 0.5, -0.5, 1e308, float("inf"), float("nan")),
    *("", " ", "x", "3e-4", "0", "\0", "../..", "/", "{", "{emotion", "{emotion} {x}", "{0}", "a" * 5000, "é\u0301"),
    *([], [1], [None], ["a", "a"], [[]], {}, {"a": 1}, {"": {"": []}}),
)


class Bomb:
    """A pickle of it makes a file when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (MARKER, "w")


def pick(rng: Generator, choices: Any) -> Any:
    """One of them, as it stands (numpy would turn it into an array's element)."""
    choices = list(choices)
    return choices[rng.integers(len(choices))]


def spoil_bytes(data: bytes, rng: Generator) -> tuple[bytes, str]:
    """Other bytes in place of `data`, and what was done to it."""
    at, length = int(rng.integers(max(len(data), 1))), int(rng.integers(1, 64))
    kind = pick(rng, ("cut", "flip", "flip", "zeros", "insert", "repeat", "empty", "random", "pickle"))
    noise = rng.bytes(length)
    spoilt = {
        "cut": data[:at],
        "flip": data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :] if data else b"\0",
        "zeros": data[:at] + bytes(len(data[at : at + length])) + data[at + length :],
        "insert": data[:at] + noise + data[at:],
        "repeat": data + data[at:],
        "empty": b"",
        "random": noise,
        "pickle": pickle.dumps(Bomb()),
    }[kind]
    return spoilt, f"{kind} at {at}"


def spoil_file(fpath: Path, rng: Generator) -> str:
    """Change, remove or replace one file."""
    kind = pick(rng, ("bytes",) * 6 + ("gone", "directory", "loop"))
    if kind == "bytes":
        spoilt, done = spoil_bytes(fpath.read_bytes(), rng)
        fpath.write_bytes(spoilt)
        return f"{fpath}: {done}"
    fpath.unlink()
    if kind == "directory":
        fpath.mkdir()
    elif kind == "loop":
        fpath.symlink_to(fpath.name)
    return f"{fpath}: {kind}"


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every value of nested mappings and lists."""
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    return [place for key in keys for place in [(*path, key), *places(tree[key], (*path, key))]]


def spoil_tree(tree: Any, rng: Generator) -> tuple[Any, ...]:
    """Replace, remove or rename one value, in place. Returns its path."""
    *parents, last = path = pick(rng, places(tree))
    node = tree
    for key in parents:
        node = node[key]
    kind = pick(rng, ("replace",) * 6 + ("remove", "rename"))
    if kind == "replace":
        node[last] = pick(rng, NOISE)
    elif kind == "remove" or isinstance(node, list):
        del node[last]
    else:
        node[pick(rng, ("x", "", 1, None, f"{last}s"))] = node.pop(last)
    return tuple(path)


def spoil_json(fpath: Path, rng: Generator) -> str:
    """Change one value of a JSON file."""
    tree = json.loads(fpath.read_text())
    path = spoil_tree(tree, rng)
    fpath.write_text(json.dumps(tree))
    return f"{fpath}: {'.'.join(map(str, path))} -> {fpath.read_text()[-400:]}"

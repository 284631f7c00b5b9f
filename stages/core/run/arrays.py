"""The one place where Zarr groups are created and opened: version 3, with the codecs that this project writes.

The metadata of an array name the codecs that decode its chunks. A crafted array could name a codec that runs code: the
filter `pickle` of Zarr version 2 does, in older releases of numcodecs. So `open_group` reads the metadata as JSON, and
checks the names before Zarr makes codecs of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zarr
from zarr.core.sync import sync
from zarr.storage import StorePath

from stages.core.run import urls

LOCAL = "file://"  # through fsspec, Zarr would not make the folders
CODECS = ("bytes", "crc32c", "sharding_indexed", "zstd")


class ForeignArrayError(Exception):
    """An array that this project did not write. The message names its path, and the codec or version that is foreign.

    The modules that open arrays catch this error, and raise an error class of their own with the same message.
    """


def create_group(place: Path | str, *, overwrite: bool = False) -> Any:
    """Create a Zarr group of version 3, and return it open for writing.

    place: folder or URL of the group. overwrite: whether to remove what is there. Otherwise an error is raised.
    Raises ForeignArrayError for a URL of a kind that is not allowed (`urls.py`).
    """
    return zarr.create_group(_allowed(place), overwrite=overwrite, zarr_format=3)


def open_group(place: Path | str, names: Sequence[str], *, writable: bool = False) -> Any:
    """Open a Zarr group after a check of the metadata of its arrays. No chunk is read.

    place: folder or URL of the group. names: the arrays that the caller will use.
    writable: whether the arrays can be changed.
    Returns the open group. Raises ForeignArrayError if the group or an array is of Zarr version 2, if an array has a
    codec that is not in CODECS, or for a URL of a kind that is not allowed (`urls.py`). Errors of Zarr pass unchanged,
    such as FileNotFoundError for a missing group.
    """
    place = _allowed(place)
    try:  # consolidated metadata are not used: they would describe the arrays a second time
        group: Any = zarr.open_group(place, mode="r+" if writable else "r", zarr_format=3, use_consolidated=False)
    except FileNotFoundError:
        _refuse_version_2(place, names)
        raise
    for name in names:
        _check_array(group.store_path / name)
    return group


def _allowed(place: Path | str) -> Path | str:
    """The place itself, if it is a path or an allowed URL. A URL of this machine becomes a path."""
    if isinstance(place, Path) or "://" not in place:
        return place
    if not urls.is_allowed(place):
        raise ForeignArrayError(f"{place}: no such URL is opened, only {urls.KINDS}")
    return Path(place.removeprefix(LOCAL)) if place.startswith(LOCAL) else place


def _check_array(place: StorePath) -> None:
    described = _described(place / "zarr.json")
    if described is None:
        _check_version(place)
        raise KeyError(f"{place} is missing")
    foreign = [name for name in _codecs(described.get("codecs")) if name not in CODECS]
    if foreign:
        known = ", ".join(CODECS)
        raise ForeignArrayError(
            f"{place}: codec {foreign[0]!r} is not one that this project writes ({known}); nothing was decoded"
        )


def _codecs(given: Any) -> Iterator[str]:
    """Names of codecs, and of the codecs inside a sharding codec, from the JSON of an array."""
    if not isinstance(given, list):
        raise ValueError(f"codecs are {given!r:.80}, not a list")
    for codec in given:
        yield str(codec["name"] if isinstance(codec, dict) else codec)
        inner = codec.get("configuration", {}) if isinstance(codec, dict) else {}
        for key in ("codecs", "index_codecs"):
            if key in inner:
                yield from _codecs(inner[key])


def _refuse_version_2(place: Path | str, names: Sequence[str]) -> None:
    """Raise ForeignArrayError if the group is one of Zarr version 2. The first array that is found gives the codecs."""
    try:
        group: Any = zarr.open_group(place, mode="r", zarr_format=2, use_consolidated=False)
    except FileNotFoundError:
        return
    for name in names:
        _check_version(group.store_path / name)
    raise ForeignArrayError(f"{group.store_path} is of Zarr version 2, not 3")


def _check_version(place: StorePath) -> None:
    described = _described(place / ".zarray")
    if described is not None:
        codecs = [*(described.get("filters") or []), described.get("compressor")]
        named = ", ".join(repr(codec.get("id")) for codec in codecs if isinstance(codec, dict)) or "none"
        raise ForeignArrayError(f"{place} is of Zarr version 2, not 3 (codecs: {named}); nothing was decoded")


def _described(place: StorePath) -> dict[str, Any] | None:
    """The JSON object at `place`, or None if there is nothing."""
    kept = sync(place.get())
    if kept is None:
        return None
    described = json.loads(kept.to_bytes())
    if not isinstance(described, dict):
        raise ValueError(f"{place} holds {type(described).__name__}, not keys and values")
    return described

"""The image files in a folder, and the file that a name probably means if no file has that name."""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePosixPath

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


class Folder:
    """The image files below a folder, by their paths relative to it. Hidden files and folders are left out.

    path: the folder.
    """

    def __init__(self, path: Path):
        self.path = path
        images = (file.relative_to(path) for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        self.names = sorted(name.as_posix() for name in images if not any(part.startswith(".") for part in name.parts))
        self._plain = {_plain(name): name for name in self.names}
        self._stems = {_stem(name): name for name in self.names}

    def hint(self, name: str) -> str:
        """Say which file is probably meant, and how its name differs. Returns "" if no name is near.

        name: path relative to the folder. No file has this name.
        """
        slashed = name.replace("\\", "/")
        found = self._plain.get(_plain(slashed)) or self._stems.get(_stem(slashed))
        if found is None:
            return ""
        if unicodedata.normalize("NFC", found) == unicodedata.normalize("NFC", slashed):
            form = "with slashes" if found == slashed else "in another Unicode form; rename the file"
            return f"; {found!r} is there, {form}"
        how = "capital letters" if _plain(found) == _plain(slashed) else "the ending"
        return f"; {found!r} is there, which differs in {how}"

    def unnamed(self, named: set[str]) -> list[str]:
        """Return the image files that are not in `named`, a set of paths relative to the folder."""
        return [name for name in self.names if name not in named]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return _plain(str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).name else name)

"""Names that look alike. One woman under two names would be two women, and stand in both splits."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

CYRILLIC = dict(zip("АВЕКМНОРСТУХЅІЈаеорсухѕіјһԁԛԝѵӏ", "ABEKMHOPCTYXSIJaeopcyxsijhdqwvl", strict=True))
GREEK = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαιυνορϲϳ", "ABEZHIKMNOPTYXaiuvopcj", strict=True))
HOMOGLYPHS = str.maketrans(CYRILLIC | GREEK)
"""Letters that have a twin in Latin script. They are the pairs of single letters in Unicode's list for security
mechanisms (UTS #39, confusables.txt) that most fonts draw alike. The list gives `l` for capital iota and for the
Ukrainian capital I; here it is `I`, because `l` and `I` themselves are told apart."""
NUMBER = re.compile(r"0*([0-9]+)(?:\.0*|(\.[0-9]*[1-9])0*)?")


def pairs(names: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Find names that differ but look alike.

    names: names, of which some may be equal. Equal names are no pair.
    Yields for each different name that looks like an earlier one: the position of the earlier, its own position, and
    in what the two differ.
    """
    seen: dict[str, int] = {}
    first: dict[str, int] = {}
    for position, name in enumerate(names):
        if name in first:
            continue
        first[name] = position
        keys = _keys(name)
        earlier = next((seen[key] for key in keys if key in seen), None)
        if earlier is not None:
            yield earlier, position, difference(names[earlier], name)
        for key in keys:
            seen.setdefault(key, position)


def difference(a: str, b: str) -> str:
    """Say in what two names differ that look alike. Returns a phrase that follows `they differ only in`."""
    for phrase, fold in (
        ("the width or form of letters", _compatible),
        ("capitals", lambda name: _compatible(name).casefold()),
        ("capitals or spaces", _folded),
        ("the way a number is written", _plain_number),
    ):
        if fold(a) == fold(b):
            return phrase
    letters = [letter for letter in unicodedata.normalize("NFD", a + b) if ord(letter) in HOMOGLYPHS]
    return f"letters of another alphabet ({', '.join(dict.fromkeys(map(_named, letters)))})"


def _keys(name: str) -> set[str]:
    """Texts of which two names that look alike share one: homoglyphs are replaced before and after capitals go."""
    return {_plain_number(_latin(name)), _compatible(_latin(_plain_number(name)))}


def _latin(name: str) -> str:
    return unicodedata.normalize("NFD", name).translate(HOMOGLYPHS)


def _compatible(name: str) -> str:
    return unicodedata.normalize("NFKC", name)


def _folded(name: str) -> str:
    return "".join(_compatible(name).casefold().split())


def _plain_number(name: str) -> str:
    """Without capitals and spaces; 007 and 7.0 become 7."""
    folded = _folded(name)
    number = NUMBER.fullmatch(folded)
    return number[1] + (number[2] or "") if number else folded


def _named(letter: str) -> str:
    return f"{letter} is {unicodedata.name(letter)}"

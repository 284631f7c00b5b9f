"""Texts that users give and tables show (labels, prompts, names of images): what they may contain.

A text can act where a table goes. `dvc plots show` copies the cells of a CSV file as they are into a script of its
page. A spreadsheet runs a cell that starts with = + - or @ as a formula. Invisible characters make two labels of what
people read as one.
"""

from __future__ import annotations

import unicodedata

MARKUP = '<>&"'
FORMULA = "=+-@"
INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories: control and format characters (also those that turn the direction of writing), half characters,
private and unassigned ones, separators of lines and paragraphs."""


def fault(text: str) -> str | None:
    """Find what is wrong with a text. Returns what is wrong and what to do, or None for a sound text.

    Refused are the characters < > & and ", which a page takes for markup; a first character that makes a cell of a
    spreadsheet a formula, in any width; and invisible characters. Apostrophes and letters of all languages are sound.
    """
    for letter in text:
        if letter in MARKUP:
            return f"contains {letter}, which a page takes for markup; leave it out"
        if unicodedata.category(letter) in INVISIBLE:
            return f"contains the invisible character U+{ord(letter):04X}; leave it out"
    if unicodedata.normalize("NFKC", text[:1]) in tuple(FORMULA):
        return f"starts with {text[0]}, which a spreadsheet takes for a formula; start with a letter or a digit"
    return None


def label_fault(text: str) -> str | None:
    """Find what is wrong with a label, such as the name of an emotion. Returns as `fault` does.

    A label is sound if `fault` finds nothing, and if it is not empty, has no space around it, and is in Unicode's
    composed form (NFC).
    """
    if not text.strip():
        return "is empty; give it a name"
    if text != text.strip():
        return "has spaces around it; leave them out"
    if not unicodedata.is_normalized("NFC", text):
        return f"has letters composed of several characters; write {unicodedata.normalize('NFC', text)!r} (NFC)"
    return fault(text)

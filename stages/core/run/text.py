"""Texts that users give and tables show (labels, prompts, names of images): what they may contain.

A text can act where a table goes. `dvc plots show` copies the cells of a CSV file as they are into a script of its
page. A spreadsheet runs a cell that starts with = + - or @ as a formula. Invisible characters make two labels of what
people read as one.

A prompt may be a template with fields, such as "a {emotion} woman". `filled` writes the text.
"""

from __future__ import annotations

import re
import unicodedata
from string import Formatter

MARKUP = '<>&"'
FORMULA = "=+-@"
INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories: control and format characters (also those that turn the direction of writing), half characters,
private and unassigned ones, separators of lines and paragraphs."""
ARTICLE = re.compile(r"(?<![\w'’])(a)n?(\s+)$", re.IGNORECASE)
VOWEL_SOUND = re.compile(r"(?!eu|one|u[st][eiu]|uni[^mn])[aeiou]|honest|hour|heir", re.IGNORECASE)
"""A rule of thumb for English: "an angry", "an unhappy" and "an hour", but "a euphoric" and "a unique"."""


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


def filled(template: str, /, **values: str) -> str:
    """Replace the fields of a template, such as "a {emotion} woman", by their values.

    template: a text with names in braces. values: the text that replaces each name.
    Returns the text. An English indefinite article that stands right before a field is written as the value asks for
    it: "a {emotion} woman" becomes "a happy woman" or "an angry woman", and so does "an {emotion} woman".
    """
    written = ""
    for literal, field, _, _ in Formatter().parse(template):
        if field is None:  # the last part, or one that ends in a doubled brace, which stands for a brace
            written += literal
        else:
            n = "n" if VOWEL_SOUND.match(values[field]) else ""
            written += ARTICLE.sub(rf"\g<1>{n}\g<2>", literal) + values[field]
    return written

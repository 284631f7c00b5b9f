"""Names that a person would read as one are found; names that differ are not."""

from __future__ import annotations

import unicodedata

import pytest

from stages.core.ingestion import lookalikes
from stages.core.ingestion.lookalikes import CYRILLIC, GREEK, difference, pairs


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        ("Anna", "anna", "capitals"),
        ("Weiß", "WEISS", "capitals"),
        ("Anna", "Ａnna", "the width or form of letters"),
        ("Anna B", "anna  b", "capitals or spaces"),
        ("Anna B", "Anna\u00a0B", "the width or form of letters"),
        ("AnnaB", "Anna B", "capitals or spaces"),
        ("7", "007", "the way a number is written"),
        ("7", "7.0", "the way a number is written"),
        ("007", "7.0", "the way a number is written"),
        ("0", "00", "the way a number is written"),
        ("1.50", "01.5", "the way a number is written"),
        ("Anna", "\u0410nna", "letters of another alphabet (\u0410 is CYRILLIC CAPITAL LETTER A)"),
        ("Iris", "\u0399ris", "letters of another alphabet (\u0399 is GREEK CAPITAL LETTER IOTA)"),
        ("\u0412\u0435\u0440\u0430", "bepa", "CYRILLIC CAPITAL LETTER VE"),
        ("\u0412\u0415\u0420\u0410", "\u0432\u0435\u0440\u0430", "capitals"),
        ("\u0451", "\u00eb", "CYRILLIC SMALL LETTER IE"),  # with the same two dots
    ],
)
def test_what_looks_alike_is_found(a, b, says):
    assert [(i, j) for i, j, _ in pairs([a, "other", b])] == [(0, 2)]
    assert says in difference(a, b)


def test_names_that_differ_are_no_pair():
    names = [
        "Anna",
        "Anne",
        "Zoe",
        "Zoé",
        "w1",
        "w2",
        "w10",
        "10",
        "1",
        "100",
        "1.5",
        "15",
        "a_b",
        "a-b",
        "O1",
        "02",
        "笑",
    ]
    assert list(pairs(names)) == []
    assert list(pairs(["Anna", "Anna", "", ""])) == []


def test_two_long_numbers_are_not_rounded_to_one():
    assert list(pairs(["1" + "0" * 40, "1" + "0" * 39 + "1"])) == []


def test_a_third_name_is_a_pair_too():
    assert [(i, j) for i, j, _ in pairs(["anna", "Anna", "Anna", "ANNA"])] == [(0, 1), (0, 3)]


def test_homoglyphs_are_letters_of_the_same_case():
    """A row of the table that had slipped by one place would pair letters of another case, or of another kind."""
    for script, letters in (("CYRILLIC", CYRILLIC), ("GREEK", GREEK)):
        for letter, latin in letters.items():
            assert unicodedata.name(letter).startswith(script)
            if letter not in "\u04cf\u03f2\u03f3":  # palochka, lunate sigma and yot stand alone
                assert letter.isupper() == latin.isupper()
    assert not set(CYRILLIC) & set(GREEK) and lookalikes.HOMOGLYPHS

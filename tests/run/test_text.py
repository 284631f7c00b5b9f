"""Labels, prompts and names of images: what could act in a page or a spreadsheet is refused, other texts are not."""

from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.run.text import fault, filled, label_fault


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("</script><script>alert(1)</script>", "contains <, which a page takes for markup; leave it out"),
        ("a > b", "contains >"),
        ("rock & roll", "contains &"),
        ('say "hi"', 'contains "'),
        ("=HYPERLINK(1)", "starts with =, which a spreadsheet takes for a formula"),
        ("+1", "starts with +"),
        ("-1", "starts with -"),
        ("@sum", "starts with @"),
        ("＝1", "starts with ＝"),
        ("\t=1", "contains the invisible character U+0009"),
        ("a\0b", "U+0000"),
        ("a\nb", "U+000A"),
        ("happy\u202edas", "U+202E"),
        ("hap\u200bpy", "U+200B"),
        ("a\ud800", "U+D800"),
        ("a\u2028b", "U+2028"),
    ],
)
def test_what_could_act_is_named_with_a_remedy(text, says):
    assert says in str(fault(text)) and ";" in str(fault(text))


@pytest.mark.parametrize(
    "text", ["", "happy", "a woman's face, smiling", "très gaie", "笑", "a-b", "1+1=2", "f/8.jpg", "7"]
)
def test_other_texts_are_sound(text):
    assert fault(text) is None


@given(text=st.text(max_size=20))
def test_a_sound_text_is_the_same_in_a_page_and_starts_no_formula(text):
    if fault(text) is None:
        assert html.escape(text).replace("&#x27;", "'") == text
        assert not text.startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        (" happy", "has spaces around it"),
        ("gaie\u0301", "write 'gaié' (NFC)"),
        ("<b>", "contains <"),
    ],
)
def test_a_label_is_more_than_a_sound_text(label, says):
    assert says in str(label_fault(label))
    assert label_fault("happy") is None


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        ("a {e} woman", ["angry"], "an angry woman"),
        ("a {e} woman", ["happy"], "a happy woman"),
        ("an {e} woman", ["sad"], "a sad woman"),
        ("A {e} woman", ["Unhappy"], "An Unhappy woman"),
        ("a photo of a {e} woman", ["upset"], "a photo of an upset woman"),
        ("a {e} woman", ["euphoric"], "a euphoric woman"),
        ("a {e} woman", ["honest"], "an honest woman"),
        ("a woman, {e}", ["angry"], "a woman, angry"),
        ("Anna {e}", ["angry"], "Anna angry"),
        ("l'a {e}", ["aimé"], "l'a aimé"),
        ("a {e} woman in a {c} top", ["amused", "orange"], "an amused woman in an orange top"),
        ("a {e} woman in a {c} top", ["happy", "red"], "a happy woman in a red top"),
        ("{e}", ["angry"], "angry"),
        ("a woman", [], "a woman"),
        ("a {{framed}} face of an {e} woman", ["happy"], "a {framed} face of a happy woman"),
    ],
)
def test_the_article_before_a_field_is_that_of_its_value(template, values, expected):
    assert filled(template, **dict(zip("ec", values, strict=False))) == expected

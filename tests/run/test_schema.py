"""stages/core/schema.py only passes or refuses what params.yaml says, so no stage depends on it in dvc.yaml."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.core import schema
from tests.imports import CORE, ROOT
from tests.run.test_params import GOOD

ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 2**40)
    | st.floats()
    | st.text(max_size=6)
    | st.just("a {emotion} woman"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)


def same(given_value: Any, kept: Any) -> bool:
    """Equal in value and in type; 1 and 1.0 may stand for one another where a float is asked for."""
    if isinstance(given_value, list):
        return len(given_value) == len(kept) and all(map(same, given_value, kept))
    numbers = {type(given_value), type(kept)} == {int, float}
    return (type(given_value) is type(kept) or numbers) and given_value == kept


@pytest.mark.parametrize("section", schema.SECTIONS)
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_section_keeps_every_value_it_does_not_refuse(section, data):
    """Some keys get any value: each value that passes is the one given, and nothing is added, dropped or filled in."""
    cls = schema.SECTIONS[section]
    keys = data.draw(st.lists(st.sampled_from(list(GOOD[section])), unique=True, max_size=2))
    values = {key: data.draw(ANY | st.sampled_from(list(GOOD[section].values()))) for key in keys}
    tried = {**GOOD[section], **values}
    try:
        kept = cls.model_validate(tried)
    except ValidationError:
        return
    assert list(kept.model_dump()) == list(cls.model_fields) and set(tried) == set(cls.model_fields)
    assert all(same(value, getattr(kept, key)) for key, value in tried.items())


def test_sections_hold_nothing_but_required_fields_and_validators_that_return_what_they_were_given():
    """A default, a property or a method would be behaviour that params.yaml does not show."""
    classes = [node for node in ast.parse((CORE / "schema.py").read_text()).body if isinstance(node, ast.ClassDef)]
    assert {cls.name for cls in classes} == {cls.__name__ for cls in (schema.Section, *schema.SECTIONS.values())}
    for cls in classes:
        for node in cls.body:
            if isinstance(node, ast.FunctionDef):
                assert [ast.unparse(decorator) for decorator in node.decorator_list] == [
                    "model_validator(mode='after')"
                ]
                returned = [ast.unparse(part.value) for part in ast.walk(node) if isinstance(part, ast.Return)]
                assert returned == ["self"]
            elif isinstance(node, ast.AnnAssign):
                assert node.value is None, f"{cls.name}.{ast.unparse(node.target)} has a default"
            else:
                assert isinstance(node, ast.Expr) or cls.name == "Section"
    assert all(field.is_required() for cls in schema.SECTIONS.values() for field in cls.model_fields.values())


def test_no_stage_declares_the_schema():
    assert "stages/core/schema.py" not in (ROOT / "dvc.yaml").read_text().replace("# a", "").split("stages:", 1)[1]

"""What is written for people and for DVC."""

from __future__ import annotations

import json

import pytest

from stages.core import results


def test_metrics_are_nested_numbers(tmp_path):
    fpath = tmp_path / "metrics" / "stage.json"
    results.write_metrics(fpath, {"a": {"b": 1, "c": 0.5}})
    assert json.loads(fpath.read_text()) == {"a": {"b": 1, "c": 0.5}}


@pytest.mark.parametrize("value", [None, "text", [1.0], True, float("nan"), float("inf")])
def test_what_dvc_would_drop_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match=r"stage\.a\.b"):
        results.write_metrics(tmp_path / "stage.json", {"a": {"b": value}})

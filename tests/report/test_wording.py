"""How numbers are written, by hand."""

from __future__ import annotations

import pytest

from stages.core.report import wording
from tests.report.made import found


@pytest.mark.parametrize(
    ("estimate", "says"), [(0.01, "1 point"), (-0.014, "-1 point"), (0.016, "2 points"), (0.0, "0 points")]
)
def test_one_point_is_singular(estimate, says):
    assert wording.points(found(estimate, 0.0, 0.02)) == f"{says} [0, 2]"


@pytest.mark.parametrize(
    ("value", "digits", "sign", "says"),
    [
        (-0.001, 2, "", "0.00"),
        (-0.0, 0, "+", "0"),
        (0.004, 2, "+", "0.00"),
        (-0.006, 2, "", "-0.01"),
        (1, 0, "+", "+1"),
    ],
)
def test_zero_has_no_sign(value, digits, sign, says):
    assert wording.fixed(value, digits, sign) == says


def test_an_interval_around_nothing_has_no_minus():
    assert wording.number(found(-0.001, -0.002, 0.002)) == "0.00 [0.00, 0.00]"
    assert wording.points(found(-0.001, -0.002, 0.002)) == "0 points [0, 0]"
    assert wording.percent(found(-0.0, -0.0, 0.01)) == "0 % [0, 1]"
    assert (wording.in_percent(-0.001), wording.in_percent(0.256)) == ("0 %", "26 %")


def test_numbers_that_underflow_are_not_shown_as_measured_zeros():
    assert (wording.power(0.0), wording.power(1.04e-9)) == ("< 1e-300", "1.04e-09")
    assert wording.mean_and_spread(0.0, 0.0) == "0 ± 0"

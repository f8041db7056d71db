from __future__ import annotations

import math

import pytest

from faasmoe.evaluation.report.units import SHOWN, interval, with_spread, written
from faasmoe.evaluation.results import FIGURES
from faasmoe.evaluation.statistics import Estimate


def test_every_figure_has_a_name() -> None:
    assert SHOWN.keys() == FIGURES.keys()


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (1234.5, 20.0, "1,234 ± 20"),
        (12.34, 0.56, "12.3 ± 0.6"),
        (9.9996, math.nan, "10.0"),
        (0.01234, 0.002, "0.0123 ± 0.0020"),
        (0.0, math.nan, "0"),
        (0.0, 0.0, "0"),
    ],
)
def test_three_digits_count(value: float, half: float, text: str) -> None:
    assert with_spread(value, half) == text


def test_figures_are_written_in_their_units_and_marked() -> None:
    found = Estimate(2.5e9, 2.4e9, 2.6e9, 3)
    assert written(found, SHOWN["memory_mean_bytes"]) == "2.50 ± 0.10"
    assert written(found, SHOWN["memory_mean_bytes"], extrapolated=True) == "2.50 ± 0.10 †"
    assert written(None, SHOWN["memory_mean_bytes"], extrapolated=True) == ""


def test_bounds_that_are_not_known_are_not_written() -> None:
    assert interval(Estimate(0.5, 0.4, 0.6, 3)) == "0.400 to 0.600"
    assert interval(Estimate(0.5, math.nan, math.nan, 1)) == ""
    assert interval(Estimate(0.5, -math.inf, math.inf, 2)) == ""

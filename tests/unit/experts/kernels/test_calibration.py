from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from faasmoe.experts.kernels.calibration import ONEDNN, Calibration, Measurement, fastest
from faasmoe.experts.kernels.choice import Choice

NAMES = ["wide", "narrow"]


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ({"wide": [2.0, 2.0], "narrow": [4.0, 4.0]}, "wide"),
        ({"wide": [2.0, 2.0], "narrow": [1.0, 1.0]}, "narrow"),
        ({"wide": [2.0, 2.0], "narrow": [1.0, 4.1]}, "wide"),
        ({"wide": [2.0, 2.0], "narrow": [1.0, 3.0]}, "narrow"),
        ({"wide": [2.0, 2.0], "narrow": [1.96, 1.96]}, "wide"),  # no more than noise
        ({"wide": [2.0, 2.0], "narrow": [1.9, 1.9], "plain": [1.8, 1.8]}, "plain"),
        ({"narrow": [3.0, 3.0], "plain": [2.0, 2.0]}, "plain"),  # the best by the flags was not measured
    ],
)
def test_the_fastest_over_all_products_is_chosen(times: dict[str, list[float]], chosen: str) -> None:
    by_product = [{name: its[i] for name, its in times.items()} for i in range(2)]
    assert fastest(by_product, ["wide", "narrow", "plain"]) == chosen


def test_what_was_not_measured_with_all_products_is_not_chosen() -> None:
    assert fastest([{"wide": 2.0, "narrow": 1.0}, {"wide": 2.0}], NAMES) == "wide"
    assert fastest([{"of tomorrow": 1.0}], NAMES) == "wide"


def test_each_format_has_its_own_choice_and_a_format_that_was_not_measured_that_of_all() -> None:
    found = calibration(
        ("bfloat16", 1, {"wide": 2.0, "narrow": 1.0}),
        ("int8", 1, {"wide": 1.0, "narrow": 9.0}),
    )
    assert found.choice("bfloat16", NAMES) == Choice("narrow")
    assert found.choice("int8", NAMES) == Choice("wide")
    assert found.choice("of tomorrow", NAMES) == Choice("wide")
    assert found.choice("bfloat16", ["wide"]) == Choice("wide")  # narrow does not run here


@pytest.mark.parametrize(
    ("onednn", "rows"),
    [
        ({}, None),
        ({64: 5.0, 512: 50.0}, 64),
        ({64: 5.1, 512: 50.0}, 512),  # not twice as fast with 64 rows
        ({64: 5.0, 512: 51.0}, None),  # it is no rule if it does not hold for more rows
        ({64: 20.0, 512: 200.0}, None),
    ],
)
def test_onednn_is_chosen_from_the_rows_on_with_which_it_is_twice_as_fast(
    onednn: dict[int, float], rows: int | None
) -> None:
    ours = {1: 1.0, 64: 10.0, 512: 100.0}
    its = {count: {ONEDNN: onednn[count]} if count in onednn else {} for count in ours}
    found = calibration(*(("bfloat16", count, {"wide": time, **its[count]}) for count, time in ours.items()))
    assert found.choice("bfloat16", ["wide"]) == Choice("wide", rows)


def calibration(*products: tuple[str, int, dict[str, float]]) -> Calibration:
    return Calibration([Measurement(format, rows, "cache", its) for format, rows, its in products], 1.0)


@pytest.mark.parametrize(
    "changed",
    [
        *({"milliseconds": {"wide": time}} for time in (0.0, -1.0, inf, nan)),
        *({"format": format} for format in ("", "int 8", "int8\n", "[bold]")),
        *({"rows": rows} for rows in (0, -1)),
    ],
)
def test_what_nobody_can_measure_is_refused(changed: dict[str, Any]) -> None:
    sound: dict[str, Any] = {"format": "int8", "rows": 1, "source": "cache", "milliseconds": {"wide": 1.0}}
    Measurement(**sound)
    with pytest.raises(ValueError, match="a product "):
        Measurement(**sound | changed)


def test_a_calibration_has_measurements() -> None:
    with pytest.raises(ValueError, match="without measurements"):
        Calibration([], 1.0)

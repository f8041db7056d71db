from __future__ import annotations

import itertools

import pytest

from faasmoe.experts.kernels import calibration
from faasmoe.experts.kernels.calibration import PRODUCTS, Product, calibrate, fastest
from faasmoe.experts.kernels.library import instruction_sets


@pytest.mark.parametrize(
    ("milliseconds", "chosen"),
    [
        ({"wide": [2.0, 2.0], "narrow": [4.0, 4.0]}, "wide"),
        ({"wide": [2.0, 2.0], "narrow": [1.0, 1.0]}, "narrow"),
        ({"wide": [2.0, 2.0], "narrow": [1.0, 4.1]}, "wide"),
        ({"wide": [2.0, 2.0], "narrow": [1.0, 3.0]}, "narrow"),
        ({"wide": [2.0, 2.0], "narrow": [1.96, 1.96]}, "wide"),  # no more than noise
        ({"wide": [2.0, 2.0], "narrow": [1.9, 1.9], "plain": [1.8, 1.8]}, "plain"),
    ],
)
def test_the_fastest_over_all_cases_is_chosen(milliseconds: dict[str, list[float]], chosen: str) -> None:
    assert fastest(milliseconds) == chosen


def test_weights_of_few_rows_come_from_memory_and_those_of_many_from_a_cache() -> None:
    sizes = {case: case.outs * calibration._INS * (2 if case.format == "bfloat16" else 1) for case in PRODUCTS}
    assert all(size == 64 << 20 for case, size in sizes.items() if case.rows <= 8)
    assert all(size <= 2 << 20 for case, size in sizes.items() if case.rows > 8)


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 3), (5.5, 3)])
def test_every_set_is_measured_on_every_case_in_the_time_that_there_is(
    monkeypatch: pytest.MonkeyPatch, seconds: float, rounds: int
) -> None:
    monkeypatch.setattr(calibration, "_BYTES", 1 << 16)
    monkeypatch.setattr(calibration, "PRODUCTS", (Product("bfloat16", 1, 4), Product("int8", 3, 5)))
    ticks, asked = itertools.count(), []

    def clock() -> float:
        asked.append(next(ticks))
        return float(asked[-1])

    names = instruction_sets()
    found = calibrate(names, seconds, clock)
    assert found.milliseconds == {name: [1e3, 1e3] for name in names}
    assert found.chosen == names[0]
    assert len(asked) == 1 + rounds * 2 * 2 * len(names) + (len(asked) - 1) % (4 * len(names))

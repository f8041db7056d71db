from __future__ import annotations

import numpy as np
import pytest

from faasmoe.planner.timeline import average_and_peak, how_many, merged


def test_averages_count_what_lies_between() -> None:
    times, levels = np.array([1.0, 3.0, 4.0]), np.array([2.0, 6.0, 0.0])
    assert average_and_peak(times, levels, 0, 5) == (pytest.approx((2 * 2 + 6) / 5), 6)
    assert average_and_peak(times, levels, 2, 3) == (2, 2)
    assert average_and_peak(times, levels, 4.5, 5) == (0, 0)
    assert average_and_peak(np.array([]), np.array([]), 0, 1) == (0, 0)


def test_intervals_are_counted_and_joined() -> None:
    begin, end = merged(np.array([1, 0, 1, 1]), np.array([0.0, 1.0, 2.0, 9.0]), np.array([3.0, 4.0, 5.0, 10.0]))
    assert sorted(zip(begin, end, strict=True)) == [(0, 5), (1, 4), (9, 10)]
    times, count = how_many(begin, end)
    assert times.tolist() == [0, 1, 4, 5, 9, 10]
    assert count.tolist() == [1, 2, 1, 0, 1, 0]

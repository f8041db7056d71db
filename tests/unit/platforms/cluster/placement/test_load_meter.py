from __future__ import annotations

import pytest

from faasmoe.platforms.cluster.placement.load_meter import HALF_LIFE, LoadMeter


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_steady_calls_have_their_rate_from_the_beginning_on() -> None:
    clock = Clock()
    meter = LoadMeter(clock)
    assert meter.loads() == {}
    for second in range(1, 3001):
        clock.now = float(second)
        meter.note([("f", 100.0), ("g", 30.0), ("f", 20.0)])
        if second in (10, 100, 1000, 3000):
            assert meter.loads() == pytest.approx({"f": 120.0, "g": 30.0}, rel=0.06)


def test_what_was_called_counts_half_after_the_half_life() -> None:
    clock = Clock()
    meter = LoadMeter(clock, half_life=10.0)
    clock.now = 1000.0
    meter.note([("f", 8.0)])
    before = meter.loads()["f"]
    clock.now += 10.0
    assert meter.loads()["f"] == pytest.approx(before / 2)
    clock.now += 20.0
    meter.note([("g", 1.0)])
    loads = meter.loads()
    assert loads["f"] == pytest.approx(loads["g"])


def test_the_past_is_forgotten() -> None:
    clock = Clock()
    meter = LoadMeter(clock)
    meter.note([("f", 1e9)])
    clock.now = 40 * HALF_LIFE
    assert meter.loads()["f"] < 1.0

from __future__ import annotations

import pytest

from faasmoe.platforms.cluster.rollout.load_meter import FEW, LoadMeter

SIZES = {"f": 10, "g": 10}


def shares(meter: LoadMeter) -> float:
    loads = meter.loads(SIZES)
    return loads["f"] / loads["g"]


def test_few_calls_say_little_and_many_say_all() -> None:
    meter = LoadMeter()
    assert meter.loads(SIZES) == {"f": 10.0 * FEW, "g": 10.0 * FEW}
    assert meter.note({"f": 30.0, "g": 10.0}, 1.0)
    assert 1.0 < shares(meter) < 1.2
    for _ in range(3000):
        meter.note({"f": 30.0, "g": 10.0}, 1.0)
    assert 2.5 < shares(meter) < 3.0


def test_what_was_called_counts_half_after_the_half_life() -> None:
    meter = LoadMeter(half_life=10.0)
    meter.note({"f": 8e9}, 1.0)
    meter.note({"g": 4e9}, 10.0)
    assert shares(meter) == pytest.approx(1.0, rel=1e-6)


def test_time_in_which_nothing_is_called_does_not_count() -> None:
    meter = LoadMeter(half_life=10.0)
    meter.note({"f": 8e9, "g": 4e9}, 1.0)
    before = meter.loads(SIZES)
    assert not meter.note({"f": 0.0}, 1000.0)
    assert not meter.note({}, 1000.0)
    assert meter.loads(SIZES) == before

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from faasmoe.experts import calibrator
from faasmoe.experts.calibrator import INS, PRODUCTS, SIZES, calibrate, least_milliseconds
from faasmoe.experts.formats import REGISTERED, Registered, conversions
from faasmoe.experts.formats.registry import by_name
from faasmoe.experts.kernels.library import instruction_sets


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrator, "SIZES", {"memory": 256 * INS, "cache": 128 * INS})
    monkeypatch.setattr(calibrator, "PRODUCTS", ((1, "memory"), (3, "cache")))


def ticking(step: float = 1.0) -> Callable[[], float]:
    ticks = itertools.count()
    return lambda: step * next(ticks)


def test_every_set_is_measured_with_every_format_rows_and_source() -> None:
    names = instruction_sets()
    found = calibrate(names, 0.0, ticking())
    assert [(each.format, each.rows, each.source) for each in found] == [
        (format, rows, source)
        for format in ("bfloat16", *conversions())
        for rows, source in ((1, "memory"), (3, "cache"))
    ]
    assert all(each.milliseconds == dict.fromkeys(names, 1e3) for each in found)


def test_a_new_format_to_convert_to_is_measured_without_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTERED, "eight", Registered(REGISTERED["int8"].module, conversion=True))
    assert sum(each.format == "int8" for each in calibrate(instruction_sets()[:1], 0.0, ticking())) == 4


def test_few_rows_meet_weights_from_memory_and_many_such_from_a_cache() -> None:
    assert {rows for rows, source in PRODUCTS if source == "memory"} == {1, 8}
    assert {rows for rows, source in PRODUCTS if source == "cache"} == {1, 8, 64, 512}
    assert SIZES["memory"] >= 64 << 20
    assert SIZES["cache"] <= 1 << 20


@pytest.mark.parametrize("format", ["dense", *conversions()])
def test_made_up_weights_have_the_size_and_the_numbers_of_real_ones(format: str) -> None:
    its = by_name(format)
    weights: Any = calibrator._weights(its, 256 * INS)
    assert 128 * INS < weights.nbytes <= 256 * INS
    assert its.addresses(weights) is not None
    wide = its.widened(weights, slice(None))
    assert wide.shape[1] == INS
    assert 0.9 < float(np.std(wide)) < 1.1


class Clock:
    """Moves on when the fake kernels of an instruction set run, by what each takes."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.now, self.seconds, self.calls = 0.0, seconds, dict.fromkeys(seconds, 0)

    def __call__(self) -> float:
        return self.now

    def run(self, name: str) -> bool:
        self.now += self.seconds[name]
        self.calls[name] += 1
        return True


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Three sets of kernels, of which one is twice as slow as the fastest."""
    clock = Clock({"wide": 0.003, "narrow": 0.004, "plain": 0.006})

    class Played:
        def __init__(self, name: str) -> None:
            self.name = name

        def function(self, *_: object, result: object) -> Callable[..., bool]:
            return lambda *_: clock.run(self.name)

    monkeypatch.setattr(calibrator, "Library", Played)
    monkeypatch.setattr(calibrator, "conversions", tuple)
    return clock


def test_rounds_alternate_for_the_seconds_and_what_is_hopeless_is_in_the_first_alone(played: Clock) -> None:
    for found in calibrate(list(played.seconds), 0.05, played):
        assert found.milliseconds == pytest.approx({"wide": 3, "narrow": 4, "plain": 6})
    assert played.calls == {"wide": 6, "narrow": 6, "plain": 2}  # rounds of 26 ms and twice 14 ms


def test_one_round_runs_however_long_it_takes(played: Clock) -> None:
    calibrate(list(played.seconds), 0.0, played)
    assert played.calls == {"wide": 2, "narrow": 2, "plain": 2}


def test_short_calls_are_repeated_and_the_least_time_counts() -> None:
    clock, times = Clock({}), iter([0.0009, 0.0002, 0.0004, 0.0006])

    def call() -> None:
        clock.now += next(times)

    assert least_milliseconds(call, clock) == pytest.approx(0.2)
    assert list(times) == []


def test_kernels_without_memory_for_rows_are_not_taken_to_be_fast(
    monkeypatch: pytest.MonkeyPatch, played: Clock
) -> None:
    monkeypatch.setattr(Clock, "run", lambda *_: False)
    with pytest.raises(MemoryError):
        calibrate(["wide"], 0.0, played)

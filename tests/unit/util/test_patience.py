"""When a process that says nothing counts as lost: in ticks, so that no clock is needed."""

from __future__ import annotations

import os

import pytest

from faasmoe.util.patience import Patience, SilenceLimits, Vitals, vitals

LIMITS = SilenceLimits(stopped=3, asleep=9, working=30)


def lost_after(patience: Patience, most: int = 100) -> tuple[int, str]:
    """Ticks until it is lost, and what is said of it."""
    for tick in range(1, most + 1):
        if lost := patience.tick():
            return tick, lost
    raise AssertionError(f"not lost after {most} ticks")


def test_one_that_the_kernel_has_stopped_is_lost_soon() -> None:
    assert lost_after(Patience(lambda: Vitals(True, 7), LIMITS, 0.5)) == (6, "was stopped, and silent for 3 s")


@pytest.mark.parametrize("seen", [Vitals(False, 7), None])
def test_one_of_which_nothing_moves_is_lost_later(seen: Vitals | None) -> None:
    assert lost_after(Patience(lambda: seen, LIMITS, 1)) == (9, "was silent for 9 s")


def test_one_that_works_gets_more_time() -> None:
    efforts = iter(range(100))
    assert lost_after(Patience(lambda: Vitals(False, next(efforts)), LIMITS, 1)) == (30, "was silent for 30 s")


def test_one_that_stops_working_is_lost_when_it_has_slept() -> None:
    efforts = iter([*range(10), *[10] * 100])
    assert lost_after(Patience(lambda: Vitals(False, next(efforts)), LIMITS, 1))[0] == 3 + 10 + 6


def test_whoever_is_heard_begins_anew() -> None:
    patience = Patience(limits=LIMITS, tick=1)
    for _ in range(20):
        assert [patience.tick() for _ in range(8)] == [None] * 8
        patience.heard()
    assert lost_after(patience)[0] == 9


def test_nobody_is_looked_at_who_is_not_silent() -> None:
    patience = Patience(lambda: pytest.fail("looked"), LIMITS, 1)
    assert [patience.tick(), patience.tick()] == [None, None]


def test_vitals_of_a_process() -> None:
    seen = vitals(os.getpid())
    assert seen is not None
    assert not seen.stopped
    assert seen.effort > 0
    assert vitals(2**22 + 1) is None  # beyond the largest process id

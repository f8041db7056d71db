from __future__ import annotations

import signal

import pytest

from faasmoe.cli.server.last_resort import CLOSE_SECONDS, LastResort
from faasmoe.cli.server.signals import ENDING

INT, TERM, WINCH, CLOSED = bytes([signal.SIGINT]), bytes([signal.SIGTERM]), bytes([signal.SIGWINCH]), b"\0"


@pytest.mark.parametrize(
    ("told", "end", "alarms"),
    [
        ([(1, TERM)], 31, [30]),
        ([(1, WINCH + TERM)], 31, [30]),
        ([(1, TERM), (5, INT)], 5, [30, 0]),  # a second signal ends the drain
        ([(1, TERM), (5, INT), (6, INT)], 5, [30, 0]),
        ([(1, TERM + INT)], 1, [30, 0]),
        ([(1, TERM), (33, INT)], 31, [30]),
        ([(1, TERM), (5, CLOSED)], 5.5 - CLOSE_SECONDS, [30]),  # only threads are left
        ([(1, TERM), (35, CLOSED)], 31, [30]),
    ],
)
def test_the_strictest_limit_holds(told: list[tuple[float, bytes]], end: float, alarms: list[float]) -> None:
    now = 0.0
    set_: list[float] = []
    resort = LastResort(ENDING, lambda _: None, set_.append, lambda: now)
    resort.grace = 30.0
    for now, numbers in told:  # noqa: B007 - the clock reads it
        left = resort.note(numbers)
    assert now + left == pytest.approx(end + CLOSE_SECONDS)
    assert set_ == [seconds + 5 for seconds in alarms]


def test_without_a_signal_there_is_no_limit() -> None:
    resort = LastResort(ENDING, lambda _: None, lambda _: None, lambda: 5.0)
    assert resort.note(WINCH) == resort.note(b"") == float("inf")

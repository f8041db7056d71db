from __future__ import annotations

import queue
import signal

import pytest

from faasmoe.cli.last_resort import CLOSE_SECONDS, LATE, LastResort


class Clock:
    """A clock, and a queue whose `get` lets time pass."""

    def __init__(self, *orders: tuple[float, tuple[float, int]]) -> None:
        self.now = 0.0
        self._orders = list(orders)  # when, what

    def __call__(self) -> float:
        return self.now

    def get(self, timeout: float | None) -> tuple[float, int]:
        if self._orders and (timeout is None or self._orders[0][0] <= self.now + timeout):
            self.now, order = self._orders.pop(0)
            return order
        assert timeout is not None, "nothing would ever happen"
        self.now += timeout
        raise queue.Empty


@pytest.mark.parametrize(
    ("orders", "killed"),
    [
        ([(1.0, (31.0, LATE))], (31.0, LATE)),
        ([(1.0, (31.0, LATE)), (5.0, (9.0, LATE))], (9.0, LATE)),  # a second signal
        ([(1.0, (31.0, LATE)), (40.0, (44.0, LATE))], (31.0, LATE)),
        ([(1.0, (31.0, LATE)), (5.0, (99.0, LATE))], (31.0, LATE)),
        ([(1.0, (31.0, LATE)), (5.0, (6.0, 0))], (6.0, 0)),  # closed, but for threads
        ([(1.0, (31.0, LATE)), (30.5, (31.5, 0))], (31.0, 0)),
    ],
)
def test_the_strictest_order_holds(
    orders: list[tuple[float, tuple[float, int]]], killed: tuple[float, int]
) -> None:
    clock, found = Clock(*orders), []
    resort = LastResort(lambda status: found.append((clock.now, status)), clock)
    resort._orders = clock
    resort.watch()
    assert found == [killed]


def test_the_kernel_ends_the_process_if_no_thread_can(monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[float] = []
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(signal, "setitimer", lambda _, seconds: timers.append(seconds))
    monkeypatch.setattr(signal, "getitimer", lambda _: (timers[-1] if timers else 0.0, 0.0))
    resort = LastResort(lambda _: None)
    resort.within(30.0)
    resort.within(60.0)
    resort.within(0.0)
    assert timers == [35.0, 5.0]
    assert timers[-1] > CLOSE_SECONDS

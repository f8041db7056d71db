"""What waits for replies and calls: what has come, and whether it is awake while it waits."""

from __future__ import annotations

import pytest

from faasmoe.platforms.cluster.protocol import busy_poll
from faasmoe.platforms.cluster.protocol.busy_poll import AWAKE, BusyPoll

READY = [(3, 1)]


class Poll:
    """Something comes `after` so many seconds of `clock`."""

    def __init__(self, after: float) -> None:
        self.now, self._at = 0.0, after
        self.slept = False

    def clock(self) -> float:
        self.now += AWAKE / 10
        return self.now

    def poll(self, milliseconds: float | None) -> list[tuple[int, int]]:
        if milliseconds != 0:
            self.slept = True
            self.now = max(self.now, self._at if milliseconds is None else min(self._at, milliseconds / 1000))
        return READY if self.now >= self._at else []


def wait(monkeypatch: pytest.MonkeyPatch, waiter: BusyPoll, after: float, seconds: float | None = None) -> Poll:
    poll = Poll(after)
    monkeypatch.setattr(busy_poll.time, "monotonic", poll.clock)
    assert waiter.wait(poll, seconds) == (READY if seconds is None or seconds >= after else [])
    return poll


def test_what_comes_soon_is_waited_for_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    waiter = BusyPoll()
    assert not wait(monkeypatch, waiter, AWAKE / 2).slept
    assert not wait(monkeypatch, waiter, AWAKE / 2).slept


def test_what_comes_late_is_slept_for_until_it_comes_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    waiter = BusyPoll()
    assert wait(monkeypatch, waiter, 1.0).slept
    assert wait(monkeypatch, waiter, AWAKE / 2).slept
    assert not wait(monkeypatch, waiter, AWAKE / 2).slept


def test_it_waits_no_longer_than_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wait(monkeypatch, BusyPoll(), 5.0, 0.5).now < 1.0

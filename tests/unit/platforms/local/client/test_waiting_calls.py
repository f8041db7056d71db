"""Calls that wait for instances of a daemon that comes and goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.client.call_buffers import EncodedCall
from faasmoe.platforms.local.client.control import Activator
from faasmoe.platforms.local.client.pending_call import PendingCall
from faasmoe.platforms.local.client.waiting_calls import WaitingCalls
from faasmoe.platforms.local.protocol.frame import Header
from faasmoe.platforms.local.protocol.messages import Activated, Activation, Wanted


class Daemon(Activator):
    """Takes requests while it `lives`, and answers what it was asked for in order. A new one knows nothing."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        self.lives = True
        self.asked: list[Wanted] = []
        self.seconds: list[float] = []

    def request(self, wanted: Sequence[Wanted], seconds: float) -> bool:
        if self.lives:
            self.asked += wanted
            self.seconds.append(seconds)
        return self.lives

    def answer(self) -> Activation | None:
        if not self.asked:
            return None
        wanted = self.asked.pop(0)
        return Activated(number=wanted.number, path="i", scalable=False, memory=0, last_end="", scarce=False)

    def report_suspect(self, path: str, seconds: float) -> bool:
        return self.lives

    def dies(self) -> None:
        self.lives = False
        self.asked.clear()

    def comes_back(self) -> None:
        self.lives = True


def call(index: int) -> PendingCall:
    return PendingCall(index, f"f{index}", EncodedCall(Header(0, 0, 0, 0, 0, 0), (), False), 1.0)


def test_a_daemon_is_asked_once_and_a_little_before_the_deadline() -> None:
    daemon = Daemon()
    waiting = WaitingCalls(daemon)
    waiting.add(call(0), None)
    waiting.add(call(1), "/lost")
    assert waiting.unasked
    assert waiting.request(10.0)
    assert waiting.request(5.0)
    assert not waiting.unasked
    assert daemon.asked == [Wanted(0, "f0", None), Wanted(1, "f1", "/lost")]
    assert daemon.seconds == [pytest.approx(9.8)]
    for index in range(2):
        activation = waiting.answer()
        assert activation is not None
        assert (activation[0].index, activation[1].number) == (index, index)
    assert waiting.calls == {}


def test_a_call_that_needs_another_instance_begins_to_wait_anew() -> None:
    pending = call(0)
    pending.connection, pending.waited, pending.patience = SimpleNamespace(), 3.0, 4.0  # type: ignore[assignment]
    WaitingCalls(Daemon()).add(pending, None)
    assert (pending.connection, pending.waited, pending.patience) == (None, 0.0, 0.0)


@pytest.mark.parametrize("exhausted", [True, False])
def test_who_has_no_descriptor_to_ask_with_is_told(exhausted: bool) -> None:
    daemon = Daemon()
    daemon.dies()
    daemon.exhausted = exhausted
    waiting = WaitingCalls(daemon)
    waiting.add(call(0), None)
    assert waiting.request(1.0) is not exhausted
    assert waiting.unasked


def test_a_daemon_whose_loss_shows_when_an_instance_is_suspected_is_asked_again() -> None:
    daemon = Daemon()
    waiting = WaitingCalls(daemon)
    waiting.add(call(0), None)
    waiting.request(1.0)
    daemon.dies()
    suspected = call(1)
    connection: Any = SimpleNamespace(seconds=lambda work: work, path="i")
    suspected.connection = connection
    waiting.suspect(suspected)
    assert waiting.unasked


@given(st.lists(st.one_of(st.integers(0, 9), st.sampled_from(["request", "answer", "dies", "comes_back"]))))
def test_every_call_gets_an_instance_however_often_the_daemon_dies(events: list[int | str]) -> None:
    daemon = Daemon()
    waiting = WaitingCalls(daemon)
    served: list[int] = []

    def take() -> None:
        if (activation := waiting.answer()) is not None:
            served.append(activation[0].index)

    added: set[int] = set()
    for event in events:
        if isinstance(event, int):
            if event not in added:
                added.add(event)
                waiting.add(call(event), None)
        elif event == "request":
            waiting.request(1.0)
        elif event == "answer":
            take()
        else:
            getattr(daemon, event)()
        assert len({wanted.number for wanted in daemon.asked}) == len(daemon.asked)
        assert {wanted.number for wanted in daemon.asked} <= waiting.calls.keys()
    daemon.comes_back()
    for _ in range(3 * len(added)):
        waiting.request(1.0)
        take()
    assert sorted(served) == sorted(added)


def test_nothing_is_wanted_after_a_batch_is_abandoned() -> None:
    daemon = Daemon()
    waiting = WaitingCalls(daemon)
    waiting.add(call(0), None)
    waiting.abandon()
    assert waiting.request(1.0)
    assert (waiting.calls, daemon.asked) == ({}, [])

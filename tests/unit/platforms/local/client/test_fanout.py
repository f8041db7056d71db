from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from faasmoe.errors import DeadlineExceeded
from faasmoe.platforms.base import Call
from faasmoe.platforms.local.client import fanout as module
from faasmoe.platforms.local.client.control import Activator
from faasmoe.platforms.local.client.fanout import Fanout
from faasmoe.platforms.local.protocol.messages import Activated, Activation, DeadlinePassed, NotActivated, Wanted
from tests.unit.platforms.local.protocol.frames import send_reply


class Daemon(Activator):
    """One that answers by a plan: an answer, or None for its death, after each request that it took."""

    def __init__(self, takes: Sequence[bool], answers: Sequence[Activation | None]) -> None:
        super().__init__(Path("nowhere"))
        self.asked: list[set[int]] = []
        self._takes, self._answers = list(takes), list(answers)
        self._alive = True
        self._readable, end = os.pipe()
        os.close(end)

    def fileno(self) -> int:
        return self._readable if self._alive else -1

    def request(self, wanted: Sequence[Wanted], seconds: float) -> bool:
        self.asked.append({one.number for one in wanted})
        assert len(self.asked[-1]) == len(wanted)
        self._alive = self._takes.pop(0)
        return self._alive

    def answer(self) -> Activation | None:
        return self._answers.pop(0)

    def report_suspect(self, path: str, seconds: float) -> bool:
        return True

    def report_stuck(self, path: str, seconds: float) -> None:
        pass


GONE = Activated(number=0, path="gone", scalable=False, memory=0, last_end="", scarce=False)
LATE = NotActivated(0, DeadlinePassed("full"))


@pytest.fixture(autouse=True)
def no_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(module, "Connection", refuse)
    monkeypatch.setattr(module, "EARLY", 120.0)  # a daemon's refusal is final


def asked(takes: Sequence[bool], answers: Sequence[Activation | None]) -> list[set[int]]:
    daemon = Daemon(takes, answers)
    with pytest.raises(DeadlineExceeded, match="function f0: no instance within the deadline: full"):
        Fanout(daemon).run([Call("f0", [b""]), Call("f1", [b""])], time.monotonic() + 60)
    return daemon.asked


def test_what_a_daemon_was_asked_for_before_it_died_is_asked_for_again() -> None:
    assert asked([True, True], [None, LATE]) == [{0, 1}, {0, 1}]


def test_a_death_that_shows_when_more_is_asked_for_concerns_all() -> None:
    assert asked([True, False, True], [GONE, LATE]) == [{0, 1}, {0}, {0, 1}]


def test_nothing_is_asked_for_twice_when_the_daemon_dies_twice() -> None:
    assert asked([True, False, False, True], [GONE, LATE]) == [{0, 1}, {0}, {0, 1}, {0, 1}]


def warm(fanout: Fanout, function: str) -> socket.socket:
    """An idle connection. Returns the instance's end of it."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 1000))
    nothing = dict.fromkeys(("bind", "learn"), lambda *_: None)
    state = {
        "core": 0,
        "generation": 0,
        "path": function,
        "memory": 0,
        "scalable": False,
        "seconds": lambda _: 1e-3,
        "patience": lambda _: 60.0,
    }
    connection: Any = SimpleNamespace(socket=ours, fd=ours.fileno(), close=ours.close, **state, **nothing)
    fanout._connections.keep(function, connection)
    return theirs


@pytest.mark.parametrize("lost", ["f0", "f1"])
def test_a_lost_instance_is_replaced_while_slower_ones_are_at_work(lost: str) -> None:
    class Witness(Daemon):
        def request(self, wanted: Sequence[Wanted], seconds: float) -> bool:
            send_reply(ends["f0" if lost == "f1" else "f1"])
            return super().request(wanted, seconds)

        def fileno(self) -> int:
            return super().fileno() if self.asked else -1

    daemon = Witness([True], [NotActivated(int(lost[1]), LATE.error)])
    fanout = Fanout(daemon)
    ends = {name: warm(fanout, name) for name in ("f0", "f1")}
    ends[lost].shutdown(socket.SHUT_WR)  # reads the call, and is gone
    with pytest.raises(
        DeadlineExceeded, match=f"{lost}: no instance within the deadline: full; its instance was lost"
    ):
        fanout.run([Call("f0", [b""]), Call("f1", [b""])], time.monotonic() + 60)
    assert daemon.asked == [{int(lost[1])}]
    fanout.close()
    for end in ends.values():
        end.close()


def test_a_core_that_falls_idle_takes_a_call_from_one_that_has_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three calls on one core, none on the other: after the patience of one connection the last one moves."""
    monkeypatch.setattr(module, "_assign", lambda bound, *_: [0] * len(bound))
    daemon = Daemon([], [])
    daemon._alive = False  # nobody asks it for anything
    fanout = Fanout(daemon)
    fanout._cores = (0, 1)
    ends = {name: warm(fanout, name) for name in ("f0", "f1", "f2")}
    bound: list[tuple[str, int]] = []
    for function in ends:
        connection: Any = fanout._connections.take(function)

        def bind(core: int, _: object, connection: Any = connection) -> None:
            if connection.core != core:
                connection.core = core
                bound.append((connection.path, core))
                for end in ends.values():  # now that this has happened, all answer
                    send_reply(end)

        connection.bind = bind
        fanout._connections.keep(function, connection)
    fanout.run([Call(name, [b""]) for name in ends], time.monotonic() + 60)
    assert bound == [("f2", 1)]
    fanout.close()
    for end in ends.values():
        end.close()


def test_what_has_come_is_taken_before_anything_is_called_late() -> None:
    """As after a pause of the whole machine: the deadline is over, and the reply is there."""
    fanout = Fanout(Daemon([], []))
    fanout._activator._alive = False  # type: ignore[attr-defined]
    end = warm(fanout, "f")
    connection: Any = fanout._connections.take("f")
    sent: list[int] = []

    def bind(*_: object) -> None:  # the second time when all calls are looked at
        sent.append(1)
        if len(sent) == 2:
            send_reply(end)

    connection.bind = bind
    fanout._connections.keep("f", connection)
    replies = fanout.run([Call("f", [b""])], time.monotonic() - 1)
    assert len(replies) == 1
    assert len(sent) == 2
    fanout.close()
    end.close()


def test_an_instance_that_takes_long_is_suspected(monkeypatch: pytest.MonkeyPatch) -> None:
    suspected: list[str] = []

    class Detective(Daemon):
        def report_suspect(self, path: str, seconds: float) -> bool:
            suspected.append(path)
            send_reply(end)
            return True

    monkeypatch.setattr(module, "TICK", 0.01)
    daemon = Detective([], [])
    daemon._alive = False  # nobody asks it for instances
    fanout = Fanout(daemon)
    end = warm(fanout, "f")
    connection: Any = fanout._connections.take("f")
    connection.patience = lambda _: 0.05
    fanout._connections.keep("f", connection)
    fanout.run([Call("f", [b""])], time.monotonic() + 60)
    assert suspected == ["f"]
    fanout.close()
    end.close()

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from faasmoe.errors import DeadlineExceeded
from faasmoe.platforms.base import Call
from faasmoe.platforms.local import fanout as module
from faasmoe.platforms.local.control import Activator
from faasmoe.platforms.local.fanout import Fanout


class Daemon(Activator):
    """One that answers by a plan: an answer, or None for its death, after each request that it took."""

    def __init__(self, takes: Sequence[bool], answers: Sequence[dict[str, Any] | None]) -> None:
        super().__init__(Path("nowhere"))
        self.asked: list[set[int]] = []
        self._takes, self._answers = list(takes), list(answers)
        self._alive = True
        self._readable, end = os.pipe()
        os.close(end)

    def fileno(self) -> int:
        return self._readable if self._alive else -1

    def request(self, wanted: Sequence[tuple[int, str, str | None]], seconds: float) -> bool:
        self.asked.append({number for number, _, _ in wanted})
        assert len(self.asked[-1]) == len(wanted)
        self._alive = self._takes.pop(0)
        return self._alive

    def answer(self) -> dict[str, Any] | None:
        return self._answers.pop(0)


GONE = {"id": 0, "path": "gone", "scalable": False, "memory": 0, "last_end": ""}
LATE = {"id": 0, "error": "deadline", "cause": "full"}


@pytest.fixture(autouse=True)
def no_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(module, "Connection", refuse)


def asked(takes: Sequence[bool], answers: Sequence[dict[str, Any] | None]) -> list[set[int]]:
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


def test_connections_to_instances_that_are_gone_are_swept() -> None:
    def idle() -> tuple[SimpleNamespace, socket.socket]:
        ours, theirs = socket.socketpair()
        return SimpleNamespace(socket=ours), theirs

    fanout = Fanout(Daemon([], []))
    (dead, end), (alive, kept), (lonely, other) = idle(), idle(), idle()
    fanout._idle = {"f": [dead, alive], "g": [lonely]}  # type: ignore[dict-item]
    end.close()
    other.close()
    fanout.sweep()
    assert fanout._idle == {"f": [alive]}
    assert (dead.socket.fileno(), lonely.socket.fileno()) == (-1, -1)
    fanout.close()
    assert alive.socket.fileno() == -1
    kept.close()

"""The supervisor's hold on a daemon that is no process."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from faasmoe.platforms.local.protocol.supervision import (
    LARGEST_PACKET,
    AskHealth,
    HealthReport,
    Ready,
    pack,
    read_request,
)
from faasmoe.platforms.local.supervisor.daemon_process import DaemonProcess
from faasmoe.util.liveness import LATE, TICK, ProcessState

IDLE, STOPPED = ProcessState(False, False, 1.0), ProcessState(True, False, 1.0)


class Played:
    """The daemon, and its process."""

    pid = os.getpid()

    def __init__(self) -> None:
        ours, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.setblocking(False)
        self.state = IDLE
        self.now = 0.0
        self.status: int | None = None  # None: it runs
        self.waits: list[float] = []
        self.killed = False
        process: Any = self
        self.held = DaemonProcess(process, ours, lambda: self.now, lambda *_: self.state)

    def wait(self, seconds: float) -> int:
        self.waits.append(seconds)
        if self.status is None:
            raise subprocess.TimeoutExpired("daemon", seconds)
        return self.status

    def kill(self) -> None:
        self.killed = True
        self.status = -9

    def say(self, message: Ready | HealthReport | bytes) -> bool:
        """Returns whether the supervisor has heard a message."""
        self.socket.send(message if isinstance(message, bytes) else pack(message))
        return self.held.hear()

    def check(self, late: bool = False) -> str:
        """`late`: nobody ran for a while."""
        self.now += 2 * LATE if late else TICK
        return self.held.check()

    def asked(self) -> bool:
        """Whether the supervisor has asked since."""
        try:
            return read_request(self.socket.recv(LARGEST_PACKET)) == AskHealth()
        except BlockingIOError:
            return False


@pytest.fixture
def daemon() -> Iterator[Played]:
    played = Played()
    yield played
    played.held.end(0)
    played.socket.close()


def test_a_daemon_is_asked_once_it_is_ready_and_again_when_it_has_answered(daemon: Played) -> None:
    held = daemon.held
    assert not held.hear()
    assert daemon.check() == ""
    assert not daemon.asked()
    assert daemon.say(Ready())
    assert (held.ready, held.lives, held.trouble) == (True, False, "")
    for trouble in ("no memory", ""):
        for _ in range(3):
            assert daemon.check() == ""
        assert daemon.asked()
        assert not daemon.asked()
        assert daemon.say(HealthReport(trouble))
        assert (held.lives, held.trouble) == (True, trouble)
    assert not held.gone


def test_a_daemon_that_is_not_ready_within_a_minute_is_lost_but_for_times_in_which_nobody_ran(
    daemon: Played,
) -> None:
    for _ in range(1000):
        assert daemon.check(late=True) == ""
    for _ in range(120):
        assert daemon.check() == ""
    assert daemon.check() == "it was not ready within 60 s"


def test_a_daemon_that_does_not_answer_is_lost(daemon: Played) -> None:
    daemon.say(Ready())
    causes = [daemon.check() for _ in range(12)]
    assert causes[:10] == [""] * 10
    assert "it does nothing and does not answer" in causes


def test_a_daemon_that_is_stopped_is_lost_and_not_waited_for(daemon: Played) -> None:
    daemon.state = STOPPED
    daemon.check()
    assert daemon.check() == "it was stopped"
    assert daemon.held.end(5.0) == -9
    assert daemon.killed
    assert daemon.waits == [0.5, 1.0]


def test_a_daemon_that_hangs_up_is_gone(daemon: Played) -> None:
    daemon.say(Ready())
    daemon.socket.close()
    assert not daemon.held.hear()
    assert daemon.held.gone
    daemon.status = 0
    assert daemon.held.end(5.0) == 0
    assert not daemon.killed


@pytest.mark.parametrize("packet", [b"\n", pack(AskHealth())], ids=["malformed", "a request"])
def test_a_daemon_that_cannot_be_understood_is_gone(
    daemon: Played, packet: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert not daemon.say(packet)
    assert daemon.held.gone
    assert "the platform's daemon sent a malformed message" in caplog.text

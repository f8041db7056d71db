"""The life of a pre-forked worker, whose instance is played."""

from __future__ import annotations

import errno
import os

import pytest

from faasmoe.platforms.local.instance import prefork
from faasmoe.platforms.local.instance.instance import Instance, NoRoom
from faasmoe.platforms.local.instance.sandbox import Sandbox
from faasmoe.platforms.local.protocol.endings import NO_ROOM
from faasmoe.util.forkserver.connection import ClientLeft
from faasmoe.util.forkserver.worker import Assignment


class Life:
    """What happens in a worker, in its order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: dict[str, Exception] | None = None) -> None:
        self._fails = fails or {}
        self.seen: list[str] = []

        def assigned(payload: bytes, descriptors: list[int]) -> Life:
            assert (payload, descriptors) == (b"duty", [3, 4, 5])
            return self

        monkeypatch.setattr(prefork, "_live_once", lambda: self.step("rehearse"))
        monkeypatch.setattr(Instance, "assigned", assigned)

    def step(self, name: str) -> None:
        self.seen.append(name)
        if name in self._fails:
            raise self._fails[name]

    def wait(self) -> Assignment:
        self.step("wait")
        return Assignment(b"duty", [3, 4, 5])

    def run(self) -> None:
        self.step("run")

    def live(self) -> int:
        sandbox = Sandbox((lambda: self.step("sandbox"),))
        return prefork.live(self.wait, sandbox, [lambda: self.step("warm up")])


def test_all_that_takes_time_or_rights_comes_before_the_duty(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(monkeypatch)
    assert life.live() == 0
    assert life.seen == ["rehearse", "warm up", "sandbox", "wait", "run"]


@pytest.mark.parametrize(
    "fails",
    [
        {"rehearse": NoRoom()},
        {"wait": OSError(errno.EMFILE, os.strerror(errno.EMFILE))},
        {"run": NoRoom()},
    ],
    ids=lambda fails: next(iter(fails)),
)
def test_a_system_without_room_has_a_status_of_its_own(
    monkeypatch: pytest.MonkeyPatch, fails: dict[str, Exception]
) -> None:
    assert Life(monkeypatch, fails).live() == NO_ROOM


def test_a_worker_of_which_nothing_is_wanted_leaves_that_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClientLeft):
        Life(monkeypatch, {"wait": ClientLeft()}).live()

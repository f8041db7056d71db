"""What the zygote prepares, with a fork server that forks nothing."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from faasmoe.platforms.local.instance import prefork, zygote
from faasmoe.platforms.local.instance.instance import NoRoom
from faasmoe.platforms.local.instance.sandbox import Sandbox
from faasmoe.platforms.local.protocol.payloads import Preload, encode, read_preload_failed
from faasmoe.util.forkserver.connection import Connection
from faasmoe.util.forkserver.messages import LARGEST_PACKET, Event, Load, Loaded, LoadFailed, pack, read_event

Made = list[tuple[str, Callable[..., int], int, Callable[[], None]]]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Role, work, number of workers of each fork server, and what settles it."""
    servers: Made = []

    class Server:
        def __init__(self, _: Connection, role: str, work: Any, *, prefork: int, settle: Any) -> None:
            servers.append((role, work, prefork, settle))

        def serve(self) -> None:
            pass

    monkeypatch.setattr(zygote, "ForkServer", Server)
    monkeypatch.setattr(zygote, "prepare", lambda: Sandbox(()))
    monkeypatch.setattr(prefork, "_live_once", lambda: None)  # it leaves a process with other settings
    return servers


def serve(*modules: str) -> Event:
    """What the daemon hears first."""
    daemon, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with daemon, theirs:
        daemon.send(pack(Load(encode(Preload(modules, 2)))))
        zygote._serve(Connection(theirs))
        return read_event(daemon.recv(LARGEST_PACKET))


def test_modules_are_imported_and_warmed_up_here_and_in_each_child(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed: list[str] = []
    warm = SimpleNamespace(warm_up=lambda: warmed.append("warm"))
    monkeypatch.setitem(sys.modules, "warm", warm)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "cold", SimpleNamespace())  # type: ignore[arg-type]
    assert serve("warm", "cold") == Loaded()
    assert warmed == ["warm"] * 2  # and in a rehearsal
    ((role, work, prefork, _),) = made
    assert (role, prefork) == ("instance", 2)
    assert work.keywords == {"sandbox": Sandbox(()), "warm_up": [warm.warm_up]}  # type: ignore[attr-defined]


def test_what_takes_longer_than_a_start_may_comes_after_the_first_instances(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(zygote, "rehearse", lambda _: done.append("rehearsed"))
    monkeypatch.setattr(zygote, "immortalise", lambda: done.append("immortal"))
    serve()
    assert done == ["rehearsed"]
    made[0][3]()
    assert done == ["rehearsed"] * zygote._REHEARSALS + ["immortal"]


def test_without_room_for_a_rehearsal_instances_are_forked_nevertheless(
    made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(zygote, "rehearse", Mock(side_effect=NoRoom))
    assert serve() == Loaded()
    assert len(made) == 1
    assert "each instance takes more memory" in caplog.text


def test_a_module_that_cannot_be_imported_is_told(made: Made) -> None:
    event = serve("no_such_module")
    assert isinstance(event, LoadFailed)
    assert read_preload_failed(event.payload).cause == "No module named 'no_such_module'"
    assert made == []

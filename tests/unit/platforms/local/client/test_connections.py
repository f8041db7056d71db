from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from faasmoe.platforms.local.client import connections as module
from faasmoe.platforms.local.client.connections import Connections


def pair() -> tuple[Any, socket.socket]:
    ours, theirs = socket.socketpair()
    return SimpleNamespace(socket=ours, fd=ours.fileno(), close=ours.close), theirs


def test_what_was_kept_last_is_taken_first() -> None:
    connections, (one, two) = Connections(), (SimpleNamespace(), SimpleNamespace())
    assert connections.take("f") is None
    for connection in (one, two):
        connections.keep("f", connection)  # type: ignore[arg-type]
    assert [connections.take(name) for name in ("g", "f", "f", "f")] == [None, two, one, None]


def test_those_to_instances_that_are_gone_are_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEEP", 2)
    connections = Connections()
    (dead, end), (alive, kept), (lonely, other) = pair(), pair(), pair()
    for name, connection in (("f", dead), ("f", alive), ("g", lonely)):
        connections.keep(name, connection)
    end.close()
    other.close()
    connections.count_opened()
    assert (dead.socket.fileno(), lonely.socket.fileno()) != (-1, -1)
    connections.count_opened()
    assert (dead.socket.fileno(), lonely.socket.fileno()) == (-1, -1)
    assert connections.take("g") is None
    assert connections.take("f") is alive
    assert connections.take("f") is None
    connections.keep("f", alive)
    connections.close()
    connections.close()
    assert alive.socket.fileno() == -1
    kept.close()


def test_descriptors_are_freed_where_nobody_needs_them() -> None:
    connections = Connections()
    (dead, end), (alive, kept) = pair(), pair()
    connections.keep("f", dead)
    connections.keep("g", alive)
    end.close()
    connections.make_way()
    assert (dead.socket.fileno() == -1, alive.socket.fileno() == -1) == (True, False)
    connections.make_way()
    assert alive.socket.fileno() == -1
    kept.close()

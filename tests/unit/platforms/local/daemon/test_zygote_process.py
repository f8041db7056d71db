"""Which zygote is used: the first was started early, or not."""

from __future__ import annotations

import pytest

from faasmoe.platforms.local.daemon import zygote_process
from faasmoe.platforms.local.daemon.zygote_process import first_then_new
from tests.unit.util.forkserver.played import PlayedServer


def test_one_that_was_started_early_is_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    early, later = PlayedServer(), PlayedServer()
    monkeypatch.setattr(zygote_process, "spawn", later.spawn)
    first = early.spawn()
    starts = first_then_new(first)
    assert starts() is first
    with starts().connection, first.connection, early.socket, later.socket:
        assert not later.kills


def test_one_that_could_not_be_started_early_is_started_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    later = PlayedServer()
    monkeypatch.setattr(zygote_process, "spawn", later.spawn)
    with first_then_new(None)().connection as connection, later.socket:
        assert connection.fileno() >= 0

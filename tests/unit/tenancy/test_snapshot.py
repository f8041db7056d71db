from __future__ import annotations

import logging
import threading

import pytest

from faasmoe.errors import DatabaseError
from faasmoe.tenancy import snapshot as module
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.keys import create_key
from faasmoe.tenancy.snapshot import Directory, Snapshot
from faasmoe.tenancy.tenants import Tenant, add_tenant


def test_changes_are_followed(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.01)
    seen: list[Snapshot] = []
    changed = threading.Event()

    def note(snapshot: Snapshot) -> None:
        seen.append(snapshot)
        if snapshot.keys:
            changed.set()

    with Directory(database, note).start() as directory:
        assert not directory.now.tenants
        add_tenant(database, Tenant("acme"))
        _, key = create_key(database, "acme")
        assert changed.wait(30)
        assert list(directory.now.tenants) == ["acme"]
        assert directory.now.keys[key.id].key == key
    assert 1 <= len(seen) <= 2


def test_nothing_is_read_anew_without_a_change(database: Database) -> None:
    seen: list[Snapshot] = []
    directory = Directory(database, seen.append)
    before = directory.now
    directory.refresh()
    assert directory.now is before
    assert not seen


def test_a_database_that_fails_changes_nothing_that_is_known(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.01)
    add_tenant(database, Tenant("acme"))
    directory = Directory(database)
    tries = threading.Semaphore(0)

    def fail() -> None:
        tries.release()
        raise DatabaseError("gone")

    monkeypatch.setattr(directory, "refresh", fail)
    with caplog.at_level(logging.WARNING), directory.start():
        assert all(tries.acquire(timeout=30) for _ in range(3))
    assert list(directory.now.tenants) == ["acme"]
    assert [record.message for record in caplog.records] == ["changes of tenants and keys are not seen: gone"]


def test_whatever_fails_changes_are_seen_afterwards(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.001)
    changed = threading.Event()
    directory = Directory(database, lambda _: changed.set())
    errors: list[Exception] = [OSError(24, "Too many open files"), RuntimeError("can't start new thread")] * 5
    refresh = directory.refresh

    def flaky() -> None:
        if errors:
            raise errors.pop()
        refresh()

    monkeypatch.setattr(directory, "refresh", flaky)
    add_tenant(database, Tenant("acme"))
    with directory.start():
        assert changed.wait(30)
    assert list(directory.now.tenants) == ["acme"]
    assert (directory.failures.count, directory.failures.cause) == (10, None)
    assert len(caplog.records) == 2  # each cause once

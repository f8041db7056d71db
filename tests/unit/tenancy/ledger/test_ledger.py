from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

import pytest
from sqlalchemy import select

from faasmoe.errors import DatabaseError
from faasmoe.tenancy.database import tables
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.ledger import ledger as module
from faasmoe.tenancy.ledger.ledger import Entry, Idle, Ledger
from tests.records import RECORD
from tests.waiting import wait_until

PATIENCE = 30


class Broken(Database):
    """Cannot be written while `down`; says when it was tried."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.down = True
        self.tried = threading.Semaphore(0)

    def write(self):
        if self.down:
            self.tried.release()
            raise DatabaseError("the disk is full")
        return super().write()


def rows(database: Database) -> list[dict]:
    with database.read() as connection:
        return [dict(row) for row in connection.execute(select(tables.requests)).mappings()]


def results(futures: Sequence[Future[bool]]) -> list[bool]:
    return [future.result(PATIENCE) for future in futures]


def test_a_record_is_durable_when_its_future_says_so(database: Database, url: str) -> None:
    with Ledger(database).start() as ledger:
        assert ledger.add(RECORD).result(PATIENCE) is True
        with Database(url) as other:
            assert rows(other) == [RECORD.row()]
        assert rows(database)[0]["ended"] == 1000250
        assert (ledger.written, ledger.waiting, ledger.dropped) == (1, 0, 0)


def test_idle_shares_have_a_table_of_their_own(database: Database) -> None:
    entry = Idle(tenant="acme", model="m", began=10.0, ended=11.0, gb_seconds=2.5)
    with Ledger(database).start() as ledger:
        assert ledger.add(entry).result(PATIENCE)
    with database.read() as connection:
        assert dict(connection.execute(select(tables.idle)).mappings().one()) == entry.row()
    assert rows(database) == []


def test_what_comes_together_is_written_with_one_commit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    write = Ledger._write

    def counting(self: Ledger, batch: Sequence[Entry]) -> None:
        batches.append(len(batch))
        write(self, batch)

    monkeypatch.setattr(Ledger, "_write", counting)
    ledger = Ledger(database)
    futures = [ledger.add(replace(RECORD, id=str(i))) for i in range(module._BATCH + 10)]
    with ledger.start():
        assert all(results(futures))
    assert batches == [module._BATCH, 10]
    assert len(rows(database)) == module._BATCH + 10


def test_a_request_is_recorded_once(database: Database) -> None:
    with Ledger(database).start() as ledger:
        assert all(results([ledger.add(RECORD), ledger.add(RECORD)]))
        assert ledger.add(replace(RECORD, tenant="other")).result(PATIENCE)
    assert rows(database) == [RECORD.row()]


def test_many_threads_may_add(database: Database) -> None:
    with Ledger(database).start() as ledger:
        futures: list[Future[bool]] = []

        def add(number: int) -> None:
            futures.extend(ledger.add(replace(RECORD, id=f"{number}-{i}")) for i in range(100))

        threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(results(futures))
    assert len(rows(database)) == 400


def test_while_the_database_is_down_nobody_waits_and_nothing_is_lost(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    broken = Broken(url)
    with broken, caplog.at_level(logging.ERROR), Ledger(broken).start() as ledger:
        first = ledger.add(RECORD)
        assert first.result(PATIENCE) is False
        second = ledger.add(replace(RECORD, id="2"))
        assert second.done()
        assert second.result() is False
        assert ledger.failing
        assert ledger.waiting == 2
        assert all(broken.tried.acquire(timeout=PATIENCE) for _ in range(3))
        broken.down = False
        assert wait_until(lambda: not ledger.waiting)
        assert ledger.add(replace(RECORD, id="3")).result(PATIENCE)
        assert not ledger.failing
    assert {row["id"] for row in rows(database)} == {"cmpl-1", "2", "3"}
    assert ledger.dropped == 0
    said = [record.message for record in caplog.records]
    assert said == ["the ledger is not written, its records are kept: the disk is full"]


def test_what_is_kept_is_bounded_and_what_is_lost_is_counted(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(module, "MOST_KEPT", 10)
    monkeypatch.setattr(module, "_LAST_SECONDS", 0.05)
    with Broken(url) as broken, caplog.at_level(logging.ERROR):
        with Ledger(broken).start() as ledger:
            assert not any(results([ledger.add(replace(RECORD, id=str(i))) for i in range(15)]))
            assert (ledger.waiting, ledger.dropped) == (10, 5)
        assert ledger.dropped == 15  # the rest at the end
    assert any("records of requests are lost" in record.message for record in caplog.records)


def test_one_that_cannot_be_written_takes_no_other_with_it(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(database)
    wrong = [replace(RECORD, id="wrong", model=None), replace(RECORD, id="worse", seconds=object())]  # type: ignore[arg-type]
    futures = [ledger.add(entry) for entry in (RECORD, *wrong, replace(RECORD, id="2"))]
    with caplog.at_level(logging.ERROR), ledger.start():
        results(futures)
    assert [row["id"] for row in rows(database)] == ["cmpl-1", "2"]
    assert ledger.dropped == 2
    assert "acme" not in caplog.text


def test_closing_writes_what_is_left(database: Database) -> None:
    ledger = Ledger(database)
    for i in range(50):
        ledger.add(replace(RECORD, id=str(i)))
    ledger.start()
    ledger.close()
    ledger.close()
    assert len(rows(database)) == 50
    assert ledger.add(RECORD).result(0) is False
    assert ledger.dropped == 1


def test_whatever_fails_records_are_written_afterwards(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.001)
    errors: list[Exception] = [OSError(24, "Too many open files"), MemoryError(), ValueError("unthought of")] * 3
    write = Ledger._write

    def flaky(self: Ledger, batch: Sequence[Entry]) -> None:
        if errors:
            raise errors.pop()
        write(self, batch)

    monkeypatch.setattr(Ledger, "_write", flaky)
    with Ledger(database).start() as ledger:
        ledger.add(RECORD)
        assert wait_until(lambda: ledger.written == 1)
    assert (ledger.failures.count, ledger.failing) == (9, None)
    assert len(caplog.records) == 3  # each cause once
    assert len(rows(database)) == 1


def test_it_says_what_is_durable_and_what_is_lost(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 3)
    told: list[tuple[str, bool]] = []
    ledger = Ledger(database, lambda entries, durable: told.extend((entry.id, durable) for entry in entries))
    wrong = replace(RECORD, id="wrong", model=None)  # type: ignore[arg-type]
    for entry in (RECORD, wrong, replace(RECORD, id="2"), replace(RECORD, id="3")):
        ledger.add(entry)
    assert told == [("3", False)]
    ledger.start().close()
    assert told[1:] == [("cmpl-1", True), ("wrong", False), ("2", True)]
    assert (ledger.written, ledger.dropped) == (2, 2)


def test_a_database_that_hangs_keeps_nobody_at_the_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LAST_SECONDS", 0.0)
    monkeypatch.setattr(module, "_HANGING_SECONDS", 0.01)
    go, entered = threading.Event(), threading.Event()

    def hang(self: Ledger, batch: Sequence[Entry]) -> None:
        entered.set()
        assert go.wait(PATIENCE)

    monkeypatch.setattr(Ledger, "_write", hang)
    ledger = Ledger(database).start()
    future = ledger.add(RECORD)
    assert entered.wait(PATIENCE)
    ledger.close()
    assert (future.result(0), ledger.dropped) == (False, 1)
    go.set()
    ledger._thread.join(PATIENCE)
    assert not ledger._thread.is_alive()

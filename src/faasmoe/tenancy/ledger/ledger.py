"""The ledger: one durable record for each request that was run, and each tenant's share of idle instances.

A thread writes; nobody else ever waits for the database. What comes while it writes is written together the next time,
with one commit for all. While the database cannot be written, records are kept, up to a bound; what comes beyond it is
counted and lost.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from faasmoe.errors import DatabaseError
from faasmoe.tenancy.database import tables
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.tenants import milliseconds
from faasmoe.util.closeable import Closeable
from faasmoe.util.failure_log import FailureLog

log = logging.getLogger(__name__)

MOST_KEPT = 20_000  # entries that wait for a database
_BATCH = 500  # entries of one commit
_RETRY_SECONDS = 0.5
_LAST_SECONDS = 3.0  # that `close` goes on writing what is left
_HANGING_SECONDS = 0.5  # that it waits beyond for a database that hangs
_COMPLAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One request that was run. `ended` is in seconds since the epoch."""

    id: str
    tenant: str
    key: str
    model: str
    user: str = ""  # the tenant's own end user, in its words; empty if it does not say
    metadata: str = ""  # JSON, in the tenant's words; empty for none
    ended: float
    outcome: str  # "stop", "length", "cancelled" or "error"
    prompt_tokens: int
    cached_tokens: int  # of those of the prompt
    completion_tokens: int
    first_token_seconds: float | None
    seconds: float
    invocations: float = 0.0
    expert_seconds: float = 0.0
    gb_seconds: float = 0.0
    cold_starts: float = 0.0
    orchestrator_cpu_seconds: float = 0.0

    def row(self) -> dict[str, Any]:
        """The row of the database table."""
        return {**asdict(self), "ended": milliseconds(self.ended)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """A tenant's share of instances that were kept alive from `began` to `ended`, in seconds since the epoch."""

    tenant: str
    model: str
    began: float
    ended: float
    gb_seconds: float
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def row(self) -> dict[str, Any]:
        """The row of the database table."""
        return {**asdict(self), "began": milliseconds(self.began), "ended": milliseconds(self.ended)}


Entry = Record | Idle


class Ledger(Closeable):
    """Writes to `database` from `start` to `close`. May be used by several threads.

    `settled` is told of entries when they are durable (True) or lost (False), on any thread.
    """

    def __init__(
        self, database: Database, settled: Callable[[Sequence[Entry], bool], None] = lambda *_: None
    ) -> None:
        self._database = database
        self._settled = settled
        self._work = threading.Condition()  # guards what follows
        self._waiting: deque[tuple[Entry, Future[bool]]] = deque()
        self._ended = False
        self._complained = float("-inf")
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self.failures = FailureLog(log, logging.ERROR)
        self.written = 0
        self.dropped = 0

    @property
    def failing(self) -> str | None:
        """Why the database could not be written the last time; None if it could."""
        return self.failures.cause

    @property
    def waiting(self) -> int:
        """Entries that are not in the database yet."""
        return len(self._waiting)

    def start(self) -> Self:
        """Write from now on."""
        self._thread.start()
        return self

    def add(self, entry: Entry) -> Future[bool]:
        """Take an entry, at once. The result is True when it is durable, False if it is not or may not be for long.

        Adding an entry again whose id is there changes nothing.
        """
        future: Future[bool] = Future()
        with self._work:
            if len(self._waiting) < MOST_KEPT and not self._ended:
                self._waiting.append((entry, future))
                if self.failing:
                    future.set_result(False)
                self._work.notify()
                return future
            self._drop(1)
        self._settled([entry], False)
        future.set_result(False)
        return future

    def close(self) -> None:
        """Write what is left, for some seconds. May be called twice."""
        with self._work:
            self._ended = True
            self._work.notify()
        if self._thread.is_alive():
            self._thread.join(_LAST_SECONDS + _HANGING_SECONDS)
        with self._work:
            self._drop(len(self._waiting))
            for _, future in self._waiting:
                if not future.done():
                    future.set_result(False)
            if not self._thread.is_alive():
                self._waiting.clear()

    def _run(self) -> None:
        last = float("inf")  # when it has to be over
        while True:
            with self._work:
                self._work.wait_for(lambda: self._waiting or self._ended)
                if self._ended and last == float("inf"):
                    last = time.monotonic() + _LAST_SECONDS
                if not self._waiting or time.monotonic() > last:
                    return
                batch = [entry for entry, _ in list(self._waiting)[:_BATCH]]
            try:
                self._write(batch)
            except Exception as error:  # noqa: BLE001 - counted and told; whatever it is, the next try may do
                self._fail(error)
                continue
            with self._work:
                self.failures.succeeded()
                self._settle(len(batch))

    def _write(self, batch: Sequence[Entry]) -> None:
        """Raises `DatabaseError` if the database cannot be used."""
        try:
            with self._database.write() as connection:
                _insert(connection, batch)
        except DatabaseError as error:
            if not _of_a_record(error.__cause__):
                raise
            if len(batch) > 1:
                for entry in batch:  # all but the one that is wrong
                    self._write([entry])
                return
            log.error("a record cannot be written and is lost: %s", type(error.__cause__).__name__)
            with self._work:
                self.dropped += 1
            self._settled(batch, False)
            return
        with self._work:
            self.written += len(batch)
        self._settled(batch, True)

    def _fail(self, error: Exception) -> None:
        """Note it, and wait before the next attempt."""
        with self._work:
            self.failures.failed("the ledger is not written, its records are kept", error)
            for _, future in self._waiting:  # nobody is to wait for what may take long
                if not future.done():
                    future.set_result(False)
            before = self._ended
            self._work.wait_for(lambda: self._ended != before, _RETRY_SECONDS)

    def _settle(self, count: int) -> None:
        for _ in range(count):
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_result(True)

    def _drop(self, count: int) -> None:
        self.dropped += count
        now = time.monotonic()
        if count and now - self._complained > _COMPLAIN_SECONDS:
            self._complained = now
            log.error("records of requests are lost, %d so far: %d wait already", self.dropped, len(self._waiting))


def _of_a_record(cause: BaseException | None) -> bool:
    """True if the error is due to a record and not to the database."""
    if isinstance(cause, DBAPIError):
        return isinstance(cause, (DataError, IntegrityError))
    return isinstance(cause, StatementError)


def _insert(connection: Connection, batch: Sequence[Entry]) -> None:
    for table, kind in ((tables.requests, Record), (tables.idle, Idle)):
        rows = [entry.row() for entry in batch if isinstance(entry, kind)]
        if rows:
            connection.execute(_unless_there(connection, table), rows)


def _unless_there(connection: Connection, table: Table) -> Any:
    """An insert that leaves existing rows: a commit that seemed to fail may have happened."""
    made = sqlite if connection.dialect.name == "sqlite" else postgresql
    return made.insert(table).on_conflict_do_nothing(index_elements=["id"])

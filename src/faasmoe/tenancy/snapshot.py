"""Tenants and keys as a server has them in memory: nothing is asked of the database while a request waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from sqlalchemy import select

from faasmoe.tenancy.database import tables
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.keys import StoredKey, read_keys
from faasmoe.tenancy.tenants import Tenant, read_tenants
from faasmoe.util.closeable import Closeable
from faasmoe.util.failure_log import FailureLog

log = logging.getLogger(__name__)

REFRESH_SECONDS = 0.5
_LAST_SECONDS = 0.5  # that `close` waits for a look that is being taken


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All tenants by name and all keys by id, at one moment."""

    tenants: dict[str, Tenant]
    keys: dict[str, StoredKey]
    number: int  # of the change that was the last
    added: int = 0  # tenants that were ever added, those removed since among them


class Directory(Closeable):
    """The newest snapshot, read by a thread of its own from `start` to `close`.

    Read once before that. A database that cannot be read later changes nothing: what is known goes on being known.
    `changed` is called on that thread with each new snapshot.
    """

    def __init__(self, database: Database, changed: Callable[[Snapshot], None] = lambda _: None) -> None:
        self._database = database
        self._changed = changed
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="directory", daemon=True)
        self.failures = FailureLog(log)
        self.now = read_snapshot(database)

    def start(self) -> Self:
        """Follow changes from now on."""
        self._thread.start()
        return self

    def refresh(self) -> None:
        """Look whether something has changed. Raises `DatabaseError`."""
        with self._database.read() as connection:
            number = connection.execute(select(tables.changes.c.number)).scalar_one()
        if number != self.now.number:
            self.now = read_snapshot(self._database)
            self._changed(self.now)

    def close(self) -> None:
        """Follow nothing any more. May be called twice."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_SECONDS)  # a database that hangs keeps nobody

    def _follow(self) -> None:
        while not self._ended.wait(REFRESH_SECONDS):
            try:
                self.refresh()
            except Exception as error:  # noqa: BLE001 - counted and told; whatever it is, the next try may do
                self.failures.failed("changes of tenants and keys are not seen", error)
            else:
                self.failures.succeeded()


def read_snapshot(database: Database) -> Snapshot:
    """Read all tenants and keys from the database. Raises `DatabaseError`."""
    with database.read() as connection:  # the number first: a change in between is then seen the next time
        number, added = connection.execute(select(tables.changes.c.number, tables.changes.c.added)).one()
        tenants = {tenant.name: tenant for tenant in read_tenants(connection)}
        keys = {stored.key.id: stored for stored in read_keys(connection)}
    return Snapshot(tenants, keys, number, added)

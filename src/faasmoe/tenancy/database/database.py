"""The database that tenants, keys and the ledger are in: an SQLite file, or PostgreSQL."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from faasmoe.errors import DatabaseError, OptionError, brief
from faasmoe.util.closeable import Closeable

PATIENCE = 5  # seconds that one waits for a lock, a connection or a server
_STATEMENT_PATIENCE = 60  # seconds that a PostgreSQL server may take for one statement

_RIGHT = "give sqlite:////folder/file.db or postgresql://user@host/name"
_CAUSES = {
    sqlite3.SQLITE_BUSY: f"it is locked by another process; waited for {PATIENCE} seconds",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it cannot be written: the file, its folder or its disk is read-only",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: is the folder there, and may this user write in it?",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
}


class Database(Closeable):
    """Gives connections to the database at `url`; without one, to a file in the user's data folder.

    Raises `OptionError` if there can be no database of that URL. Nothing is connected before it is used; the schema
    is `tenancy.database.schema`'s business. May be used by several threads.
    """

    def __init__(self, url: str | None = None) -> None:
        self._url = parse_url(url)
        self.embedded = self._url.get_backend_name() == "sqlite"
        if self.embedded:
            _make_private(Path(self._url.database or ""), default=url is None)
        try:
            self._engine = create_engine(self._url, hide_parameters=True, **_settings(self.embedded))
        except ModuleNotFoundError as error:
            raise OptionError(
                f"--database {self}: {error.name} is missing; install it with: pip install 'psycopg[binary]'"
            ) from error
        if self.embedded:
            event.listen(self._engine, "connect", _set_up)
            event.listen(self._engine, "begin", _begin)

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection to look with, which sees the database as it was at one moment. Raises `DatabaseError`."""
        level = {} if self.embedded else {"isolation_level": "REPEATABLE READ"}  # SQLite has no other
        with self._translated(), self._engine.connect().execution_options(**level) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, committed at the end unless an error ends it. Raises `DatabaseError`."""
        with (
            self._translated(),
            self._engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    def close(self) -> None:
        """Give all connections up."""
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise DatabaseError(f"the database {self}: {_cause(error)}") from error


def parse_url(url: str | None) -> URL:
    """The location of a database; None stands for this user's data folder. Raises `OptionError` if `url` names none."""
    if url is None:
        return URL.create("sqlite", database=str(Path(platformdirs.user_data_dir("faasmoe")) / "faasmoe.db"))
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError):
        backend = ""
    if backend == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    raise OptionError(f"--database {_without_password(url)}: {_RIGHT}")


def _without_password(url: str) -> str:
    """The part of a malformed URL that may be shown: nothing before the host."""
    scheme, found, rest = url.partition("://")
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if found and "@" in rest else url


def _make_private(file: Path, default: bool) -> None:
    """Let nobody else read it: what SQLite makes beside it gets the same mode. Raises `OptionError`."""
    try:
        if default:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise OptionError(f"--database {file}: cannot be opened: {error.strerror}; {_RIGHT}") from error


def _settings(embedded: bool) -> dict[str, Any]:
    if embedded:
        return {"connect_args": {"timeout": PATIENCE}, "pool_timeout": PATIENCE}
    milliseconds = f"-c statement_timeout={_STATEMENT_PATIENCE * 1000} -c lock_timeout={PATIENCE * 1000}"
    connect = {"connect_timeout": PATIENCE, "tcp_user_timeout": PATIENCE * 1000, "options": milliseconds}
    return {"connect_args": connect, "pool_timeout": PATIENCE, "pool_pre_ping": True}


def _set_up(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions begin in `_begin`, not when Python thinks they should
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # what is committed is on the disk
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: Connection) -> None:
    """One that will write takes the lock at once: taken later, it could fail without waiting."""
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _cause(error: SQLAlchemyError) -> str:
    if not isinstance(error, DBAPIError) or error.orig is None:
        return brief(error)
    code = getattr(error.orig, "sqlite_errorcode", -1)
    return _CAUSES.get(code & 0xFF) or brief(error.orig)

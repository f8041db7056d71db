"""Checks that a database has the tables of this version, and migrates it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from faasmoe.errors import DatabaseError, OptionError
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.database.tables import SCHEMA, metadata

_VERSION_TABLE = "alembic_version"
_LOCK = 0xFAA5  # of PostgreSQL's advisory locks, so that two do not migrate at once


def open_database(url: str | None) -> Database:
    """The database at `url`, ready to be used.

    An empty one gets the tables, an older SQLite file is brought to this version. Raises `OptionError` if the URL is
    wrong or the schema is not this version's, `DatabaseError` if the database cannot be used.
    """
    database = Database(url)
    try:
        with database.read() as connection:
            found = _version(connection)
        if found != SCHEMA:
            if found is not None and not database.embedded:
                _check_older(database, found)
                raise OptionError(
                    f"--database {database}: its schema is {found}, this version needs {SCHEMA}; make a copy, then: "
                    "faasmoe database upgrade"
                )
            upgrade(database)
    except BaseException:
        database.close()
        raise
    return database


def upgrade(database: Database) -> str | None:
    """Bring the schema to this version. Returns the one it had; None if the database was empty.

    Raises `OptionError` if it is newer than this version, or holds tables that are not ours, `DatabaseError` if the
    database cannot be used.
    """
    with database.write() as connection:
        if not database.embedded:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        found = _version(connection)  # again, now that nobody else changes it
        if found == SCHEMA:
            return found
        if found is None:
            _check_empty(database, connection)
        else:
            _check_older(database, found)
        _migrate(connection)
    return found


def _version(connection: Connection) -> str | None:
    """The schema that is there, None if there is none."""
    if not inspect(connection).has_table(_VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()  # noqa: S608 - a constant


def _check_older(database: Database, found: str) -> None:
    if not found.isdecimal() or int(found) > int(SCHEMA):
        raise OptionError(
            f"--database {database}: its schema is {found}, and this version knows those up to {SCHEMA}; use the "
            "faasmoe that has made it, or a newer one"
        )


def _check_empty(database: Database, connection: Connection) -> None:
    foreign = set(inspect(connection).get_table_names()) & set(metadata.tables)
    if foreign:
        raise OptionError(
            f"--database {database}: it has tables of these names that faasmoe has not made: "
            f"{', '.join(sorted(foreign))}; give it a database of its own"
        )


def _migrate(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - heavy, and seldom needed
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util.exc import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise DatabaseError(f"the migrations of this installation are damaged: {error}") from error

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest
from sqlalchemy import text

from faasmoe.errors import DatabaseError, OptionError
from faasmoe.tenancy.database import database as module
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.database.schema import open_database
from faasmoe.tenancy.tenants import Tenant, add_tenant, list_tenants


def test_the_default_is_a_private_file_in_the_users_data_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with open_database(None) as database:
        add_tenant(database, Tenant("acme"))
        files = list((tmp_path / "data" / "faasmoe").iterdir())
        assert {file.name for file in files} == {"faasmoe.db", "faasmoe.db-wal", "faasmoe.db-shm"}
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x.db",
        "/tmp/x.db",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://h/x",
        "nonsense://h",
        "postgresql://h:x/y",
    ],
)
def test_other_urls_are_refused_with_what_would_be_right(url: str) -> None:
    with pytest.raises(OptionError, match=r"give sqlite:////folder/file\.db or postgresql:"):
        Database(url)


def test_passwords_are_not_shown() -> None:
    for url in ("mysql://me:hunter2@host/x", "postgresql://me:hunter2@host:port/x"):
        with pytest.raises(OptionError) as caught:
            Database(url)
        assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(Database("postgresql://me:hunter2@host/x"))


def test_what_is_no_folder_or_no_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="No such file or directory"):
        Database(f"sqlite:///{tmp_path}/gone/x.db")
    (tmp_path / "text.db").write_text("once upon a time " * 100)
    with pytest.raises(DatabaseError, match=r"text\.db: the file is not an SQLite database"):
        open_database(f"sqlite:///{tmp_path / 'text.db'}")


def write(database: Database, *statements: str) -> None:
    with database.write() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_a_full_disk_is_named_and_changes_nothing(database: Database) -> None:
    add_tenant(database, Tenant("acme"))
    with pytest.raises(DatabaseError, match="the disk is full"):
        write(database, "PRAGMA max_page_count = 1", "CREATE TABLE more AS SELECT hex(randomblob(1000000))")
    assert [tenant.name for tenant in list_tenants(database)] == ["acme"]


def test_a_read_only_disk_is_named(database: Database) -> None:
    with pytest.raises(DatabaseError, match="read-only"):
        write(database, "PRAGMA query_only = ON", "DELETE FROM tenants")


def test_a_locked_database_can_be_read_and_says_why_it_is_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: Database, url: str
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    other = sqlite3.connect(tmp_path / "tenants.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Database(url) as hasty:
        assert list_tenants(hasty) == []
        with pytest.raises(DatabaseError, match="locked by another process"):
            add_tenant(hasty, Tenant("acme"))
        other.execute("ROLLBACK")
        other.close()
        add_tenant(hasty, Tenant("acme"))
    assert [tenant.name for tenant in list_tenants(database)] == ["acme"]


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(OptionError, match=r"pip install 'psycopg\[binary\]'"):
        Database("postgresql://host/x")

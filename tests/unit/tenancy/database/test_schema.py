from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from faasmoe.errors import OptionError
from faasmoe.tenancy.database import schema
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.database.schema import open_database, upgrade
from faasmoe.tenancy.database.tables import SCHEMA, metadata
from faasmoe.tenancy.keys import create_key, revoke_key
from faasmoe.tenancy.tenants import Tenant, add_tenant, list_tenants, remove_tenant


def test_migrations_make_the_tables_that_the_code_works_with(database: Database) -> None:
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA


def test_opening_again_changes_nothing(database: Database, url: str) -> None:
    add_tenant(database, Tenant("acme"))
    with open_database(url) as again:
        assert [tenant.name for tenant in list_tenants(again)] == ["acme"]
        assert upgrade(again) == SCHEMA


def test_a_newer_schema_is_refused(database: Database, url: str) -> None:
    for version in ("9999", "something"):
        with database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": version})
        with pytest.raises(
            OptionError, match=f"its schema is {version}, and this version knows those up to {SCHEMA}"
        ):
            open_database(url)


def test_an_older_file_is_brought_to_this_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "old.db"
    with sqlite3.connect(file) as old:
        old.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        old.execute("INSERT INTO alembic_version VALUES ('0000')")
    old.close()
    done = []
    monkeypatch.setattr(schema, "_migrate", done.append)
    open_database(f"sqlite:///{file}").close()
    assert len(done) == 1


@pytest.mark.parametrize(
    ("changes", "added"),
    [
        ([], 0),
        (["key:admin", "key:admin", "revoke:admin"], 0),
        (["key:admin", "add", "remove"], 1),  # and left no row
        (["add"], 1),
    ],
)
def test_an_older_database_knows_whether_it_had_tenants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: list[str], added: int
) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    with open_database(url) as database:
        keys = []
        for change in changes:
            match change:
                case "key:admin":
                    keys.append(create_key(database, None)[1])
                case "revoke:admin":
                    revoke_key(database, keys[0].id)
                case "add":
                    add_tenant(database, Tenant("acme"))
                case "remove":
                    remove_tenant(database, "acme")
        with database.write() as connection:
            assert connection.execute(text("SELECT added FROM changes")).scalar_one() == changes.count("add")
            connection.execute(text("DROP INDEX requests_by_user"))
            for table, column in (("changes", "added"), ("requests", "user"), ("requests", "metadata")):
                connection.execute(text(f'ALTER TABLE {table} DROP COLUMN "{column}"'))
            connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with open_database(url) as database, database.read() as connection:
        assert connection.execute(text("SELECT added FROM changes")).scalar_one() == added


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE requests (text TEXT)")
    other.close()
    with pytest.raises(OptionError, match="that faasmoe has not made: requests"):
        open_database(f"sqlite:///{file}")
    with sqlite3.connect(file) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("requests",)]
    other.close()

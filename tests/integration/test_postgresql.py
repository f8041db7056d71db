"""Tenants and ledger on a real PostgreSQL, from Debian's packages. Skipped where there is none, and always in CI."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from faasmoe.errors import DatabaseError, OptionError
from faasmoe.tenancy.budget import Budget
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.database.schema import open_database, upgrade
from faasmoe.tenancy.database.tables import SCHEMA, metadata
from faasmoe.tenancy.keys import create_key, list_keys, revoke_key
from faasmoe.tenancy.ledger.ledger import Idle, Ledger
from faasmoe.tenancy.ledger.usage import check_by, sums
from faasmoe.tenancy.limits.recent import last_minute
from faasmoe.tenancy.limits.spending import Spending
from faasmoe.tenancy.snapshot import Directory
from faasmoe.tenancy.tenants import Tenant, add_tenant, list_tenants, remove_tenant, set_tenant
from tests.records import RECORD
from tests.waiting import wait_until

USER = "postgres"


def programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if os.environ.get("CI"):
        pytest.skip("PostgreSQL is not tested in CI")
    if not found:
        pytest.skip("no PostgreSQL here; on Debian: sudo apt-get install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is missing: pip install 'psycopg[binary]'")
    return found[-1].parent


class Cluster:
    """A server of our own, on a socket in a private folder."""

    def __init__(self, bin_: Path, folder: Path) -> None:
        self._bin, self._folder = bin_, folder
        self._who: dict = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            try:
                pwd.getpwnam(USER)
            except KeyError:
                pytest.skip(f"there is no user {USER} to run PostgreSQL as")
            shutil.chown(folder, USER)
            self._who = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []}
        self.url = f"postgresql://{USER}@/postgres?host={folder}"
        self._data = folder / "data"
        self._run("initdb", "-D", self._data, "-U", USER, "-A", "trust", "-N", "-E", "UTF8")

    def start(self) -> None:
        options = f"-k {self._folder} -c listen_addresses= -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-o", options, "-l", self._folder / "log", "-w", "-t", "60", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "-t", "60", "stop")

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._bin / program), *map(str, arguments)]
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=100,
            cwd=self._folder, **self._who,
        )  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    bin_ = programs()
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        made = Cluster(bin_, Path(folder))
        made.start()
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Database]:
    """Empty but for its tables."""
    with Database(cluster.url) as plain, plain.write() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    with open_database(cluster.url) as opened:
        yield opened


def test_migrations_make_the_tables_that_the_code_works_with(database: Database) -> None:
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_an_older_schema_waits_for_the_command_and_a_newer_one_is_refused(
    database: Database, cluster: Cluster
) -> None:
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    with pytest.raises(OptionError, match=r"its schema is 0000, this version needs .*: faasmoe database upgrade"):
        open_database(cluster.url)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(OptionError, match="its schema is 9999, and this version knows"):
        open_database(cluster.url)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": SCHEMA})
    assert upgrade(database) == SCHEMA


def test_an_older_database_is_upgraded_by_the_command(database: Database, cluster: Cluster) -> None:
    add_tenant(database, Tenant("gone"))
    remove_tenant(database, "gone")
    with database.write() as connection:
        connection.execute(text("ALTER TABLE changes DROP COLUMN added"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(OptionError, match="its schema is 0001"):
        open_database(cluster.url)
    assert upgrade(database) == "0001"
    assert Directory(database).now.added == 1


def test_budgets_are_read_at_one_moment(database: Database) -> None:
    now = time.time()
    spending = Spending(database, None)
    spending.refresh()
    entries = [replace(RECORD, id=f"spent-{i}", tenant="spender", ended=now) for i in range(3)]
    for entry in entries:
        spending.note(entry)
    with Ledger(database, spending.settled).start() as ledger:
        assert all(ledger.add(entry).result(30) for entry in entries)
    for _ in range(2):
        assert spending.left("spender", Budget(Decimal(100))) == 100 - 3 * 14
        spending.refresh()
    assert sum(recent.tenant == "spender" for recent in last_minute(database, now)) == 3


def test_tenants_and_keys(database: Database) -> None:
    add_tenant(database, Tenant("acme", weight=2, rpm=10))
    set_tenant(database, "acme", {"tpm": 10**11})
    text_, key = create_key(database, "acme", 30)
    directory = Directory(database)
    assert directory.now.tenants["acme"].tpm == 10**11
    assert directory.now.keys[key.id].key == key
    assert text_.startswith(key.id)
    revoke_key(database, key.id)
    directory.refresh()
    assert directory.now.keys[key.id].key.revoked
    assert list_keys(database, "acme")[0].revoked
    remove_tenant(database, "acme")
    assert list_tenants(database) == []


def test_the_ledger_and_its_sums(database: Database) -> None:
    with Ledger(database).start() as ledger:
        futures = [ledger.add(entry) for entry in (RECORD, RECORD, replace(RECORD, id="2", outcome="error"))]
        futures.append(ledger.add(Idle(tenant="acme", model="m", began=999.0, ended=1000.0, gb_seconds=2.5)))
        assert all(future.result(60) for future in futures)
    for by in (None, "day", "model", "key"):
        found = sums(database, 0, 2000, "acme", check_by(by))
        assert sum(totals.requests for totals in found.values()) == 2
        assert sum(totals.prompt_tokens for totals in found.values()) == 9
        assert sum(totals.gb_seconds for totals in found.values()) == 1.5
        assert sum(totals.idle_gb_seconds for totals in found.values()) == 2.5
    assert {group for _, group in sums(database, 0, 2000, None, "day")} == {"1970-01-01"}


def test_a_server_that_goes_and_comes_loses_no_record(database: Database, cluster: Cluster) -> None:
    with Ledger(database).start() as ledger:
        assert ledger.add(RECORD).result(60)
        cluster.stop()
        try:
            assert ledger.add(replace(RECORD, id="2")).result(60) is False
            with pytest.raises(DatabaseError):
                list_tenants(database)
        finally:
            cluster.start()
        assert wait_until(lambda: ledger.add(replace(RECORD, id="3")).result(60), 60)
    totals = sums(database, 0, 2000)[("acme", None)]
    assert totals.requests == 3

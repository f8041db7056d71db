from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from sqlalchemy import insert, select

from faasmoe.errors import NameTaken, NoSuchName, TenancyError
from faasmoe.tenancy.budget import Budget
from faasmoe.tenancy.database import tables
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.keys import create_key, list_keys
from faasmoe.tenancy.tenants import Tenant, add_tenant, list_tenants, remove_tenant, set_tenant, show_tenant

LIMITED = Tenant("b.c-d_9", weight=2.5, rpm=10, tpm=20000, concurrency=3, budget=Budget(Decimal("1.5"), "USD"))


def number(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(tables.changes.c.number)).scalar_one()


def test_tenants_are_read_as_they_were_added(database: Database) -> None:
    added = [add_tenant(database, LIMITED), add_tenant(database, Tenant("acme"))]
    assert list_tenants(database) == added[::-1]
    assert show_tenant(database, "b.c-d_9") == added[0]
    assert replace(added[0], created=0) == LIMITED


def test_what_is_set_changes_and_the_rest_stays(database: Database) -> None:
    add_tenant(database, LIMITED)
    set_tenant(database, LIMITED.name, {"rpm": None, "weight": 1.0})
    assert replace(show_tenant(database, LIMITED.name), created=0) == replace(LIMITED, rpm=None, weight=1.0)


def test_names_are_unique(database: Database) -> None:
    add_tenant(database, Tenant("acme"))
    with pytest.raises(NameTaken, match="there is a tenant acme already"):
        add_tenant(database, Tenant("acme", weight=2))


def test_who_is_gone_or_was_never_there_is_not_found(database: Database) -> None:
    add_tenant(database, Tenant("acme"))
    create_key(database, "acme")
    remove_tenant(database, "acme")
    assert list_tenants(database) == list_keys(database) == []
    calls = [
        lambda: show_tenant(database, "acme"),
        lambda: set_tenant(database, "acme", {"rpm": 1}),
        lambda: remove_tenant(database, "acme"),
        lambda: create_key(database, "acme"),
        lambda: list_keys(database, "acme"),
    ]
    for call in calls:
        with pytest.raises(NoSuchName, match="there is no tenant 'acme'"):
            call()
    add_tenant(database, Tenant("acme"))  # it has left nothing


def test_a_name_with_a_bill_stays_with_it(database: Database) -> None:
    add_tenant(database, Tenant("acme"))
    create_key(database, "acme")
    row = {"id": "i", "tenant": "acme", "model": "m", "began": 0, "ended": 1, "gb_seconds": 1.0}
    with database.write() as connection:
        connection.execute(insert(tables.idle).values(row))
    remove_tenant(database, "acme")
    assert list_tenants(database) == []
    assert all(key.revoked for key in list_keys(database))
    with pytest.raises(NameTaken, match="whose bill has that name"):
        add_tenant(database, Tenant("acme"))


def test_each_change_can_be_seen_by_servers(database: Database) -> None:
    seen = [number(database)]
    add_tenant(database, Tenant("acme"))
    seen.append(number(database))
    set_tenant(database, "acme", {"rpm": 1})
    seen.append(number(database))
    create_key(database, "acme")
    seen.append(number(database))
    remove_tenant(database, "acme")
    seen.append(number(database))
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "../etc",
        "a..b",
        "-a",
        "a-",
        "a b",
        "a\n",
        "é",
        "a" * 64,
        "a'; DROP TABLE tenants; --",
        "a\0",
    ],
)
def test_names_that_mean_something_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(TenancyError, match="a tenant's name is"):
        Tenant(name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("weight", value) for value in (0.0, -1.0, float("nan"), 1e9)),
        *(("rpm", 0), ("rpm", 10**13), ("tpm", -1), ("concurrency", 0)),
    ],
)
def test_values_out_of_range_are_named(database: Database, field: str, value: float) -> None:
    with pytest.raises(TenancyError, match=f"{field} {value}"):
        Tenant("acme", **{field: value})
    add_tenant(database, Tenant("acme"))
    with pytest.raises(TenancyError, match=field):
        set_tenant(database, "acme", {field: value})
    assert replace(show_tenant(database, "acme"), created=0) == Tenant("acme")


@pytest.mark.parametrize("limit", ["rpm", "tpm", "concurrency"])
@pytest.mark.parametrize("value", [0, -1, 10**12 + 1])
def test_a_limit_out_of_range_is_refused_with_the_range(limit: str, value: int) -> None:
    with pytest.raises(
        TenancyError, match=f"{limit} {value}: must be 1 to 1000000000000; leave it out for no limit"
    ):
        Tenant("acme", **{limit: value})

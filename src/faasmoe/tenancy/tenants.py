"""Tenants: who is billed, limited and isolated."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from faasmoe.errors import NameTaken, NoSuchName, TenancyError
from faasmoe.tenancy.budget import Budget
from faasmoe.tenancy.database import tables
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.ranges import MOST_LIMIT, WEIGHTS

LONGEST_NAME = 63
_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tenant:
    """The settings of one tenant. A limit of None does not limit."""

    name: str
    _: KW_ONLY
    weight: float = 1.0  # share of tokens beside others'
    rpm: int | None = None  # requests in any 60 seconds
    tpm: int | None = None  # tokens in any 60 seconds, of prompts and completions
    concurrency: int | None = None  # requests at the same time
    budget: Budget | None = None
    created: float = 0.0  # seconds since the epoch

    def __post_init__(self) -> None:
        """Raises `TenancyError` naming what is out of range."""
        check_name(self.name)
        low, high = WEIGHTS
        if not low <= self.weight <= high:  # so that NaN is refused
            raise TenancyError(f"weight {self.weight}: must be {low:g} to {high:g}")
        for field in ("rpm", "tpm", "concurrency"):
            value = getattr(self, field)
            if value is not None and not 1 <= value <= MOST_LIMIT:
                raise TenancyError(f"{field} {value}: must be 1 to {MOST_LIMIT}; leave it out for no limit")

    def facts(self) -> dict[str, Any]:
        """The tenant as JSON."""
        facts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**facts, "budget": None if self.budget is None else str(self.budget)}


def check_name(name: str) -> str:
    """The name itself. Raises `TenancyError` if no tenant can have it."""
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        raise TenancyError(
            f"{name[:LONGEST_NAME]!r}: a tenant's name is up to {LONGEST_NAME} letters and digits, with single '.', "
            "'_' or '-' between them"
        )
    return name


def add_tenant(database: Database, tenant: Tenant) -> Tenant:
    """Raises `NameTaken` if there is one of that name, or was: its bill stays its own."""
    tenant = replace(tenant, created=_whole(time.time()))
    with database.write() as connection:
        taken = select(tables.tenants.c.removed).where(tables.tenants.c.name == tenant.name)
        found = connection.execute(taken).first()
        if found is not None:
            raise NameTaken(
                f"there is a tenant {tenant.name} already"
                if found.removed is None
                else f"there was a tenant {tenant.name}, whose bill has that name: choose another"
            )
        connection.execute(insert(tables.tenants).values(_values(tenant)))
        connection.execute(update(tables.changes).values(added=tables.changes.c.added + 1))
        note_change(connection)
    return tenant


def list_tenants(database: Database) -> list[Tenant]:
    """All tenants, ordered by name."""
    with database.read() as connection:
        return read_tenants(connection)


def show_tenant(database: Database, name: str) -> Tenant:
    """Raises `NoSuchName`."""
    with database.read() as connection:
        return read_tenant(connection, name)


def set_tenant(database: Database, name: str, changed: Mapping[str, Any]) -> Tenant:
    """Change some fields of a tenant. Raises `NoSuchName`, or `TenancyError` if a value is out of range."""
    with database.write() as connection:
        tenant = replace(read_tenant(connection, name), **changed)
        connection.execute(update(tables.tenants).where(tables.tenants.c.name == name).values(_values(tenant)))
        note_change(connection)
    return tenant


def remove_tenant(database: Database, name: str) -> None:
    """Revoke all keys of a tenant and forget its limits. Raises `NoSuchName`.

    What it has used stays in the ledger, and its name with it; without any record, the name is free again.
    """
    tenant, key = tables.tenants.c, tables.keys.c
    with database.write() as connection:
        read_tenant(connection, name)
        if _has_records(connection, name):
            now = milliseconds(time.time())
            open_keys = update(tables.keys).where(key.tenant == name, key.revoked.is_(None))
            connection.execute(open_keys.values(revoked=now))
            connection.execute(update(tables.tenants).where(tenant.name == name).values(removed=now))
        else:
            connection.execute(delete(tables.keys).where(key.tenant == name))
            connection.execute(delete(tables.tenants).where(tenant.name == name))
        note_change(connection)


def _has_records(connection: Connection, name: str) -> bool:
    ledgers = (tables.requests.c, tables.idle.c)
    return any(connection.execute(select(c.id).where(c.tenant == name).limit(1)).first() for c in ledgers)


def read_tenants(connection: Connection) -> list[Tenant]:
    """All tenants, ordered by name."""
    wanted = select(tables.tenants).where(tables.tenants.c.removed.is_(None)).order_by(tables.tenants.c.name)
    return [_tenant(row) for row in connection.execute(wanted)]


def read_tenant(connection: Connection, name: str) -> Tenant:
    """Raises `NoSuchName`."""
    wanted = tables.tenants.c
    row = connection.execute(select(tables.tenants).where(wanted.name == name, wanted.removed.is_(None))).first()
    if row is None:
        raise NoSuchName(f"there is no tenant {name[:LONGEST_NAME]!r}")
    return _tenant(row)


def note_change(connection: Connection) -> None:
    """Let servers see that tenants or keys have changed."""
    number = tables.changes.c.number
    connection.execute(update(tables.changes).values(number=number + 1))


def milliseconds(seconds: float) -> int:
    """Convert seconds to the milliseconds of the tables."""
    return math.floor(seconds * 1000)


def _whole(seconds: float) -> float:
    """The tenant as the database has it."""
    return milliseconds(seconds) / 1000


def _tenant(row: Row[Any]) -> Tenant:
    budget = None if row.budget is None else Budget.parse(row.budget)
    return Tenant(
        row.name,
        weight=row.weight,
        rpm=row.rpm,
        tpm=row.tpm,
        concurrency=row.concurrency,
        budget=budget,
        created=row.created / 1000,
    )


def _values(tenant: Tenant) -> dict[str, Any]:
    return {**tenant.facts(), "created": milliseconds(tenant.created)}

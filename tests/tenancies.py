"""An tenancy without a database, for tests of what uses one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from decimal import Decimal
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

from faasmoe.tenancy.authentication import Authentication
from faasmoe.tenancy.budget import Budget
from faasmoe.tenancy.keys import Key, StoredKey
from faasmoe.tenancy.ledger.ledger import Entry
from faasmoe.tenancy.limits.limits import Limits
from faasmoe.tenancy.snapshot import Snapshot
from faasmoe.tenancy.tenants import Tenant


class PlayedTenancy:
    """Tenant `name` has the key `fm-name-secret`, admins have `fm-admin-secret`. What is recorded is in `records`."""

    database: Any = None
    prices = None
    failing: str | None = None

    def __init__(
        self, *tenants: Tenant, durable: bool | None = True, anonymous: bool = True, local: bool = False
    ) -> None:
        """`durable` None: records never are."""
        self.records: list[Entry] = []
        self.held: list[Future[bool]] = []
        self._durable = durable
        keys = [stored(f"fm-{tenant.name}", tenant.name) for tenant in tenants] + [stored("fm-admin", None)]
        now = Snapshot({tenant.name: tenant for tenant in tenants}, {key.key.id: key for key in keys}, 0)
        self.directory = SimpleNamespace(now=now)
        self.authentication = Authentication(
            self.directory, 0 if anonymous else None, time.monotonic, time.time, local=local
        )
        self.limits = Limits(Purse(), time.monotonic, time.time)
        self.ledger = SimpleNamespace(written=5, dropped=2, waiting=3, failing="the disk is full")
        self.failures = {"ledger": SimpleNamespace(count=4)}
        self.calendar = time.time

    def record(self, entry: Entry) -> Future[bool]:
        future: Future[bool] = Future()
        self.records.append(entry)
        self.held.append(future)
        if self._durable is not None:
            future.set_result(self._durable)
        return future


class Purse:
    """Every budget is used up."""

    def priced(self, budget: Budget) -> bool:
        return True

    def left(self, tenant: str, budget: Budget) -> Decimal:
        return Decimal(0)

    def most(self, budget: Budget, prompt_tokens: int, completion_tokens: int) -> Decimal:
        return Decimal(prompt_tokens + completion_tokens)


def stored(key_id: str, tenant: str | None) -> StoredKey:
    return StoredKey(Key(key_id, tenant, 0.0), sha256(f"{key_id}-secret".encode()).hexdigest())


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer fm-{name}-secret"}


def tenants_of(records: Sequence[Entry]) -> list[str]:
    return [record.tenant for record in records]

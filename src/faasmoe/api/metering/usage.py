"""What tenants have used, over HTTP."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request

from faasmoe.errors import EngineBusy
from faasmoe.tenancy.authentication import Caller
from faasmoe.tenancy.ledger.usage import Period, check_by, priced, total_of, usage
from faasmoe.tenancy.service import TenancyService

MOST_AT_ONCE = 2  # sums over the ledger; more would only wait for each other
MOST_WAITING = 32  # for their turn

Day = Annotated[str | None, Query(description="A day in UTC, such as 2026-11-30.")]
Grouping = Annotated[str | None, Query(description="day, model or key; without it, all together.")]


class UsageQueries:
    """Sums up the ledger on threads, few at a time."""

    def __init__(self, tenancy: TenancyService) -> None:
        self._tenancy = tenancy
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)
        self._asked = 0  # that run or wait

    async def facts(
        self, tenant: str | None, first: str | None, last: str | None, by: str | None
    ) -> dict[str, Any]:
        """What a tenant, or each, has used. Raises `TenancyError`, `DatabaseError` or `EngineBusy`."""
        period, grouped, prices = Period.parse(first, last), check_by(by), self._tenancy.prices
        if self._asked >= MOST_AT_ONCE + MOST_WAITING:
            raise EngineBusy(f"{MOST_WAITING} requests for usage wait already")
        self._asked += 1
        try:
            async with self._turns:
                lines = await asyncio.to_thread(usage, self._tenancy.database, period, tenant, grouped)
        finally:
            self._asked -= 1
        return {
            "object": "usage",
            "from": str(period.first),
            "to": str(period.last),
            "by": grouped,
            "currency": prices and prices.currency,
            "lines": [line.facts(prices, grouped) for line in lines],
            "total": priced(total_of(lines), prices),
        }


def add_own_usage(app: FastAPI, tenancy: TenancyService) -> None:
    """What a tenant may know about itself."""
    sums = UsageQueries(tenancy)

    @app.get("/v1/usage")
    async def own_usage(
        request: Request,
        first: Annotated[Day, Query(alias="from")] = None,
        last: Annotated[Day, Query(alias="to")] = None,
        by: Grouping = None,
    ) -> dict[str, Any]:
        caller: Caller = request.state.caller
        return await sums.facts(caller.name, first, last, by)

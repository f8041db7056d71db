"""Usage of tenants over HTTP."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request

from faasmoe.errors import EngineBusy
from faasmoe.tenancy.authentication import Caller
from faasmoe.tenancy.ledger.usage import Period, check_by, priced, total_of, usage
from faasmoe.tenancy.service import TenancyService

MOST_AT_ONCE = 2  # queries of the ledger; more would only wait for each other
MOST_WAITING = 32  # for their turn

Day = Annotated[str | None, Query(description="A day in UTC, such as 2026-11-30.")]
Grouping = Annotated[str | None, Query(description="day, model, key or user; without it, one sum.")]


class UsageQueries:
    """Queries the ledger on threads, few at a time."""

    def __init__(self, tenancy: TenancyService) -> None:
        self._tenancy = tenancy
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)
        self._queries = 0  # that run or wait

    async def facts(
        self, tenant: str | None, first: str | None, last: str | None, by: str | None
    ) -> dict[str, Any]:
        """Usage of a tenant, or of all. Raises `TenancyError`, `DatabaseError` or `EngineBusy`."""
        period, grouped, prices = Period.parse(first, last), check_by(by), self._tenancy.prices
        if self._queries >= MOST_AT_ONCE + MOST_WAITING:
            raise EngineBusy(f"{MOST_WAITING} requests for usage wait already")
        self._queries += 1
        try:
            async with self._turns:
                lines = await asyncio.to_thread(usage, self._tenancy.database, period, tenant, grouped)
        finally:
            self._queries -= 1
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
    """Add the route on which a tenant reads its own usage."""
    queries = UsageQueries(tenancy)

    @app.get("/v1/usage")
    async def own_usage(
        request: Request,
        first: Annotated[Day, Query(alias="from")] = None,
        last: Annotated[Day, Query(alias="to")] = None,
        by: Grouping = None,
    ) -> dict[str, Any]:
        caller: Caller = request.state.caller
        return await queries.facts(caller.name, first, last, by)

"""Records, period by period, each tenant's share of the cost of idle instances."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from faasmoe.platforms.base import PoolStatus
from faasmoe.tenancy.ledger.idle_cost import IdleShares
from faasmoe.tenancy.ledger.ledger import Idle
from faasmoe.util.failure_log import FailureLog

PERIOD = 10.0  # seconds; a crash loses one period at most


class IdleMeter:
    """Splits the idle time of the pool's instances between tenants (`IdleShares`). For one asyncio loop.

    Use it as an async context manager around all that uses the pool; leaving it ends the last period.
    """

    def __init__(
        self,
        pool: Callable[[], PoolStatus],
        write: Callable[[Idle], object],
        model: str,
        failures: FailureLog,
        *,
        period: float = PERIOD,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`pool` may block, and its failures are counted; `write` takes ledger entries and must not block."""
        self._pool = pool
        self._write = write
        self._model = model
        self._period = period
        self._clock = clock
        self._failures = failures
        self._shares = IdleShares()
        self._began = clock()
        self._end = asyncio.Event()

    def note(self, used: Mapping[str, float]) -> None:
        """Add the GB-seconds for which each tenant has kept instances busy (`StatsReport.busy`)."""
        self._shares.note(used)

    async def end_period(self) -> None:
        """Record all shares since the last period. If the pool does not answer, the period goes on."""
        try:
            status = await asyncio.to_thread(self._pool)
        except Exception as error:  # noqa: BLE001 - counted and logged; the next period may succeed
            self._failures.failed("idle instances are not accounted for yet", error)
            return
        self._failures.succeeded()
        began, self._began = self._began, self._clock()
        for tenant, gb_seconds in self._shares.split(status.totals.instance_gb_seconds).items():
            self._write(
                Idle(tenant=tenant, model=self._model, began=began, ended=self._began, gb_seconds=gb_seconds)
            )

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        await self._running

    async def _run(self) -> None:
        ended = False
        while not ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._period):
                    ended = await self._end.wait()
            await self.end_period()

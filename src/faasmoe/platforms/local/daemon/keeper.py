"""Keeps functions' minimum of instances running."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from faasmoe.platforms.local.daemon.pool import InstanceState, Pool
from faasmoe.platforms.local.protocol.messages import RequestRefused
from faasmoe.util.backoff import Backoff
from faasmoe.util.failure_log import FailureLog

log = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds that a kept instance waits for memory
_PAUSES = (0.1, 30.0)  # seconds before one that died is started again: at first, and at most


class Starter(Protocol):
    """What starts instances."""

    closing: bool

    @property
    def trouble(self) -> str:
        """Why none can be started now; empty if one can."""

    async def obtain(self, name: str, kept: bool = False) -> InstanceState:
        """See `Lifecycle.obtain`."""


class Keeper:
    """Tries until it can."""

    def __init__(self, pool: Pool, starter: Starter, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._starter = starter
        self._clock = clock
        self._failures = FailureLog(log, clock=clock)

    async def keep(self, name: str) -> None:
        """Have one more of a function's kept instances, after a pause that grows while they die."""
        function = self._pool.functions.get(name)
        if function is None:
            return
        first, most = _PAUSES
        if deaths := function.counts["deaths"]:
            await asyncio.sleep(min(most, first * 2 ** min(10, deaths)))
        pauses = Backoff(first, most, clock=self._clock)
        while self._pool.functions.get(name) is function and not self._starter.closing:
            try:
                async with asyncio.timeout(_PATIENCE):  # those who wait behind it have calls to make
                    await self._starter.obtain(name, kept=True)
                return
            except (RequestRefused, TimeoutError) as error:
                cause = str(error) or self._starter.trouble or "no memory for one"
                self._failures.failed("a function has fewer instances than its minimum", cause)
            await asyncio.sleep(pauses.failed())

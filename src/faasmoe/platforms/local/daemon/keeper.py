"""Keeps the minimum of instances of each function running."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from faasmoe.platforms.local.daemon.pool import FunctionState, InstanceState, Pool
from faasmoe.platforms.local.protocol.messages import RequestRefused
from faasmoe.util.backoff import Backoff
from faasmoe.util.failure_log import FailureLog

log = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds that a kept instance waits for memory at a time
_PAUSES = (0.1, 30.0)  # seconds before a kept instance is started again: at first, and at most


class Starter(Protocol):
    """Starts instances, see `Lifecycle`."""

    closing: bool

    @property
    def trouble(self) -> str:
        """Why no instance can be started now; "" if one can."""

    async def obtain(self, name: str, kept: bool = False) -> InstanceState:
        """See `Lifecycle.obtain`."""


class Keeper:
    """Starts the kept instances of functions, again and again until it can."""

    def __init__(self, pool: Pool, starter: Starter, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._starter = starter
        self._clock = clock
        self._failures = FailureLog(log, clock=clock)
        self._restoring: set[str] = set()

    async def keep(self, name: str) -> None:
        """Have as many kept instances of a function as its minimum. Returns at once if another call sees to that."""
        if name not in self._restoring:
            self._restoring.add(name)
            try:
                await self._restore(name)
            finally:
                self._restoring.discard(name)

    async def _restore(self, name: str) -> None:
        first, most = _PAUSES
        pauses = Backoff(first, most, clock=self._clock)
        deaths = 0  # that were paused for
        while (function := self._lacking(name)) is not None:
            if 0 < function.counts["deaths"] != deaths:
                deaths = function.counts["deaths"]
                await asyncio.sleep(min(most, first * 2 ** min(10, deaths)))
                continue
            try:
                async with asyncio.timeout(_PATIENCE):  # activations that wait behind it have callers
                    await self._starter.obtain(name, kept=True)
            except (RequestRefused, TimeoutError) as error:
                cause = str(error) or self._starter.trouble or "no memory for one"
                self._failures.failed("a function has fewer instances than its minimum", cause)
                await asyncio.sleep(pauses.failed())

    def _lacking(self, name: str) -> FunctionState | None:
        """The function, if it is deployed and lacks a kept instance."""
        function = self._pool.functions.get(name)
        if function is None or self._starter.closing:
            return None
        kept = sum(running.kept for running in function.instances)
        return function if kept < function.spec.min_instances else None

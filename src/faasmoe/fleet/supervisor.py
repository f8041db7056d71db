"""Keeps an orchestrator running behind a client, and starts another when it dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from faasmoe.errors import CheckpointChanged, FaasmoeError
from faasmoe.fleet.child import Child
from faasmoe.fleet.client import OrchestratorClient
from faasmoe.util.backoff import Backoff

log = logging.getLogger(__name__)

PAUSES = (0.1, 4.0)  # seconds before another try, at first and at most: what is in the way may be gone any moment
_SOON = 1.0  # seconds after which the death of an orchestrator is followed by another at once


class Supervisor:
    """Has an orchestrator started when it is its `turn`, and keeps one there until it is closed, whatever happens.

    `started` hears of each that takes requests: after how many seconds, and whether it follows one that was lost.
    """

    def __init__(
        self,
        client: OrchestratorClient,
        launch: Callable[[], Awaitable[Child]],
        turn: asyncio.Semaphore,
        started: Callable[[float, bool], None],
    ) -> None:
        self._client = client
        self._launch = launch
        self._turn = turn
        self._started = started
        self._backoff = Backoff(*PAUSES)
        self.waits = True  # for its turn
        self._child: Child | None = None  # the newest
        self._task = asyncio.create_task(self._keep())

    async def close(self, reason: str) -> None:
        """End the orchestrator and what it runs."""
        self._client.refuse(reason)
        self._task.cancel()
        await asyncio.wait([self._task])
        self._client.detach(reason)
        try:
            if self._child:
                await self._child.end()
        finally:
            if not self.waits:
                self._turn.release()

    async def _keep(self) -> None:
        self._client.why = "as many orchestrators as may run are busy with other tenants"
        await self._turn.acquire()
        self.waits = False
        self._client.why = "the orchestrator is starting"
        again = False
        while self._client.state != "stopped":
            try:
                again = await self._one(again) or again
            except Exception as error:  # noqa: BLE001 - a defect must not end the watch
                await self._pause("the orchestrator cannot be watched", error)

    async def _one(self, again: bool) -> bool:
        """From the start of an orchestrator to its end. Returns whether there was one."""
        asked = time.monotonic()
        try:
            child = await self._launch()
        except (FaasmoeError, OSError) as error:
            if isinstance(error, CheckpointChanged):
                self._client.despair(str(error))
            await self._pause("the orchestrator did not start", error)
            return False
        self._child, began = child, time.monotonic()
        self._note_start(began - asked, again)
        self._client.attach(child.link)
        reason = await child.serve()
        self._client.detach(reason)
        status = await child.end()
        if self._client.state != "stopped":
            log.error("%s (%s); starting another", reason, status, extra=self._client.whose)
        if time.monotonic() - began < _SOON:
            await asyncio.sleep(self._backoff.failed())
        else:
            self._backoff.success()
        return True

    async def _pause(self, what: str, error: Exception) -> None:
        self._client.lost = True
        pause = self._backoff.failed()
        known = isinstance(error, (FaasmoeError, OSError))
        log.error("%s, trying again in %.1f s: %s", what, pause, error if known else type(error).__name__,
                  exc_info=None if known else error)  # fmt: skip
        await asyncio.sleep(pause)

    def _note_start(self, seconds: float, again: bool) -> None:
        self._started(seconds, again)
        text = "another orchestrator is running" if again else "an orchestrator is running"
        log.info(text, extra={**self._client.whose, "seconds": round(seconds, 3)})

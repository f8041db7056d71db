"""Keeps an orchestrator running behind a client, and starts another when it dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from faasmoe.errors import FaasmoeError
from faasmoe.orchestrator.child import Child
from faasmoe.orchestrator.client import OrchestratorClient

log = logging.getLogger(__name__)

_FIRST_DELAY = 0.1  # seconds after an orchestrator that did not start; doubled each time
_LONGEST_DELAY = 30.0
_SOON = 1.0  # seconds after which the death of an orchestrator is followed by another at once


class Supervisor:
    """Has an orchestrator started when it is its `turn`, and keeps one there until it is closed.

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
        self.waits = True  # for its turn
        self._child: Child | None = None  # the newest
        self._task = asyncio.create_task(self._keep())
        self._task.add_done_callback(self._ended)

    async def close(self, reason: str) -> None:
        """End the orchestrator and what it runs."""
        self._client.refuse(reason)
        self._task.cancel()
        await asyncio.wait([self._task])  # if it has failed, `_ended` has said so
        self._client.detach(reason)
        try:
            if self._child:
                await self._child.end()
        finally:
            if not self.waits:
                self._turn.release()

    async def _keep(self) -> None:
        self._client.why = "as many orchestrators as may run are busy with other tenants; try again"
        await self._turn.acquire()
        self.waits = False
        self._client.why = "the orchestrator is starting; try again"
        again = False
        while True:
            self._child = child = await self._start(again)
            began = time.monotonic()
            self._client.attach(child.link)
            reason = await child.serve()
            self._client.detach(reason)
            status = await child.end()
            if self._client.state == "stopped":
                return
            log.error("%s (%s); starting another", reason, status, extra=self._client.whose)
            again = True
            if time.monotonic() - began < _SOON:
                await asyncio.sleep(_FIRST_DELAY)

    async def _start(self, again: bool) -> Child:
        asked, delay = time.monotonic(), _FIRST_DELAY
        while True:
            try:
                child = await self._launch()
                break
            except (FaasmoeError, OSError) as error:
                log.error("the orchestrator did not start, trying again in %g s: %s", delay, error)
            self._client.lost = True
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY)
        seconds = time.monotonic() - asked
        self._started(seconds, again)
        text = "another orchestrator is running" if again else "an orchestrator is running"
        log.info(text, extra={**self._client.whose, "seconds": round(seconds, 3)})
        return child

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.critical("the orchestrator is no longer watched", exc_info=error)
            self._client.refuse("the orchestrator is no longer watched")
            self._client.detach("the orchestrator is no longer watched")

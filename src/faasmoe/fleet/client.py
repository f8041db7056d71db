"""How the gateway talks to one orchestrator, whichever process is behind it at the moment."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

from faasmoe.errors import EngineBusy, EngineStopped, MessageError, RequestError
from faasmoe.fleet.link import Link
from faasmoe.fleet.stream import PieceStream
from faasmoe.protocol.messages import Submit, pack
from faasmoe.protocol.request import GenerationRequest
from faasmoe.protocol.stats import EngineStats

PATIENCE = 60.0  # seconds that a request waits for an orchestrator that is starting
MOST_WAITING = 1024  # requests that wait for one
_FRESH_SECONDS = 1.0  # that a page of stats waits for new ones

State = Literal["starting", "ok", "stopped"]


class OrchestratorClient:
    """Sends requests to the orchestrator that is there, and waits for the next one where there is none.

    For one asyncio loop. `fleet.supervisor` says which link to use. `tenant` is whose orchestrator it is, "" for
    everybody's; `why` says in words what those wait for who wait for an orchestrator.
    """

    def __init__(
        self,
        tenant: str = "",
        patience: float = PATIENCE,
        on_busy: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        """`on_busy` is called every second with the GB-seconds of instances that tenants have used since."""
        self.whose = {"tenant": tenant}  # for log lines
        self.why = "the orchestrator is starting"
        self.lost = False  # one was lost or could not start, and there is no other yet
        self._patience = patience
        self._on_busy = on_busy
        self._link: Link | None = None
        self._settled = asyncio.Event()  # there is a link, or there will never be one
        self._stopped: str | None = None  # why
        self._hopeless: str | None = None  # why no orchestrator can start as things are
        self._numbers = itertools.count()
        self._waiting = 0  # requests that no orchestrator has taken yet
        self._past = EngineStats()  # of orchestrators that have ended

    @property
    def state(self) -> State:
        """Whether requests are run, wait for an orchestrator, or are refused."""
        if self._stopped is not None:
            return "stopped"
        return "starting" if self._link is None else "ok"

    @property
    def busy(self) -> bool:
        """Whether there is any request."""
        return bool(self._waiting) or (self._link is not None and self._link.busy)

    @property
    def stats(self) -> EngineStats:
        """What this and earlier orchestrators have told last."""
        return self._past if self._link is None else self._past + self._link.latest

    def attach(self, link: Link) -> None:
        """Send requests here from now on."""
        self._link, self.lost, self._hopeless = link, False, None
        link.on_busy = self._on_busy
        self._settled.set()

    def detach(self, reason: str) -> None:
        """The orchestrator is lost: what it had fails with `EngineStopped`, what comes waits for the next."""
        if self._link is not None:
            link, self._link, self.lost = self._link, None, True
            self._past += link.latest.counted()
            if self._stopped is None:
                self._settled.clear()
            link.fail(reason)

    def despair(self, reason: str) -> None:
        """No orchestrator can start until somebody does something: requests fail at once until one does start."""
        self._hopeless = reason
        self._settled.set()

    def refuse(self, reason: str) -> None:
        """Take no more requests; what runs goes on. For good."""
        self._stopped = reason
        self._settled.set()

    def cut(self, reason: str) -> None:
        """Let all that runs fail with `EngineStopped`; what it has used is still told."""
        if self._link is not None:
            self._link.cut(reason)

    async def refresh(self) -> None:
        """Have stats that are as new as can be had without waiting long."""
        if self._link is not None:
            with suppress(TimeoutError, EngineBusy):
                async with asyncio.timeout(_FRESH_SECONDS):
                    await self._link.refresh()

    async def submit(self, requests: Sequence[GenerationRequest]) -> list[PieceStream]:
        """Start all of these, or none; iterate the streams for their pieces. Closing one cancels its request.

        Raises `RequestError`, `EngineBusy` or `EngineStopped`, and streams raise `EngineStopped` if the orchestrator
        fails under way. One that fails before it has taken the requests is made up for by the next, once.
        """
        if self._link is None and self._waiting + len(requests) > MOST_WAITING:
            raise EngineBusy(f"{self._waiting} requests wait for the orchestrator already; try again later")
        self._waiting += len(requests)
        try:
            return await self._submit(requests)
        finally:
            self._waiting -= len(requests)

    async def _submit(self, requests: Sequence[GenerationRequest]) -> list[PieceStream]:
        number = next(self._numbers)
        try:
            frame = pack(Submit(number, tuple(requests)))
        except MessageError as error:
            raise RequestError(f"the request cannot be run: {error}") from error
        ids = [request.id for request in requests]
        link = await self._orchestrator()
        try:
            return await link.submit(number, frame, ids)
        except EngineStopped:
            if not link.lost or self._stopped is not None:
                raise
        return await (await self._orchestrator()).submit(number, frame, ids)

    async def _orchestrator(self) -> Link:
        try:
            async with asyncio.timeout(self._patience):
                await self._settled.wait()
        except TimeoutError:
            raise EngineStopped(f"{self.why}; try again") from None
        if self._stopped is not None or self._link is None:
            raise EngineStopped(self._stopped or self._hopeless or "the orchestrator has just ended; try again")
        return self._link

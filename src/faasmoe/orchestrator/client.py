"""How the gateway talks to an orchestrator: one async stream of pieces a request, whichever process is behind it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from faasmoe.errors import EngineBusy, EngineStopped, MessageError, RequestError
from faasmoe.orchestrator.figures import Figures
from faasmoe.orchestrator.link import Link
from faasmoe.orchestrator.messages import Ready, Submit, pack
from faasmoe.orchestrator.piece_stream import PieceStream
from faasmoe.orchestrator.request import GenerationRequest

_PATIENCE = 30.0  # seconds that a request waits for an orchestrator that is starting
_FRESH_SECONDS = 1.0  # that a page of figures waits for new ones

State = Literal["starting", "ok", "stopped"]


class OrchestratorClient:
    """Sends requests to the orchestrator that is there, and waits for the next one where there is none.

    For one asyncio loop. `orchestrator.supervisor` says which link to use.
    """

    def __init__(self, patience: float = _PATIENCE) -> None:
        self._patience = patience
        self._link: Link | None = None
        self._settled = asyncio.Event()  # there is a link, or there will never be one
        self._stopped: str | None = None  # why
        self._numbers = itertools.count()
        self._figures = Figures()
        self.ready: Ready | None = None  # of the newest orchestrator
        self.restarts = 0

    @property
    def state(self) -> State:
        """Whether requests are run, wait for an orchestrator, or are refused."""
        if self._stopped is not None:
            return "stopped"
        return "starting" if self._link is None else "ok"

    @property
    def max_model_len(self) -> int:
        """Most tokens of prompt and completion together. Raises `EngineStopped` before the first start."""
        if self.ready is None:
            raise EngineStopped("the orchestrator is starting; try again")
        return self.ready.max_model_len

    def attach(self, link: Link, ready: Ready) -> None:
        """Send requests here from now on."""
        self.ready, self._link = ready, link
        self._settled.set()

    def detach(self, reason: str) -> None:
        """The orchestrator is lost: what it had fails with `EngineStopped`, what comes waits for the next."""
        if self._link is not None:
            link, self._link = self._link, None
            self._settled.clear()
            link.fail(reason)

    def refuse(self, reason: str) -> None:
        """Take no more requests; what runs goes on. For good."""
        self._stopped = reason
        self._settled.set()

    async def figures(self) -> Figures:
        """What the orchestrator has counted, as new as can be had without waiting long."""
        if self._link is None:
            self._figures.running = self._figures.waiting = 0
        else:
            with suppress(TimeoutError, EngineBusy):
                async with asyncio.timeout(_FRESH_SECONDS):
                    self._figures = await self._link.figures() or self._figures
        return self._figures

    def cancel(self, request_id: str) -> None:
        """Drop a request. Unknown ids are fine."""
        if self._link is not None:
            self._link.cancel(request_id)

    async def submit(self, requests: Sequence[GenerationRequest]) -> list[PieceStream]:
        """Start all of these, or none; iterate the streams for their pieces. Closing one cancels its request.

        Raises `RequestError`, `EngineBusy` or `EngineStopped`, and streams raise `EngineStopped` if the orchestrator
        fails under way. One that fails before it has taken the requests is made up for by the next, once.
        """
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
            raise EngineStopped("the orchestrator is starting; try again") from None
        if self._stopped is not None or self._link is None:
            raise EngineStopped(self._stopped or "the orchestrator has just ended; try again")
        return self._link

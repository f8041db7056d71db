"""Reads bodies in processes of their own, so that no body, template or tokenizer holds up the gateway."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from faasmoe.api.parsed_request import Bounds, EndpointName, ParsedRequest
from faasmoe.errors import EngineStopped, ProcessLost
from faasmoe.readers.lane import Lane, asked_by, cpu_seconds
from faasmoe.readers.launcher import ReaderLauncher
from faasmoe.readers.messages import Job, ReaderSetup

log = logging.getLogger(__name__)

LARGE = 64 << 10  # bytes; larger bodies wait for another reader, and keep no smaller one waiting
_NICENESS = 5  # of the reader of large bodies: it takes what others leave of the processors
_ATTEMPTS = 3  # to have the tokenizer loaded at the start; later ones never end


class Readers:
    """Reads bodies for the gateway: one reader for small ones, one for large ones, each fair to tenants.

    `begin` it early, `load` it when the tokenizer is there; `close` it at the end. For one asyncio loop.
    """

    def __init__(self, control: bool = False) -> None:
        """`control`: users may spell control tokens."""
        self._control = control
        self._launcher = ReaderLauncher()
        self._small, self._large = Lane(self._launcher, 0), Lane(self._launcher, _NICENESS)
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Have imported by then what `load` needs. Does not wait."""
        try:
            self._launcher.begin()
        except ProcessLost as error:  # `load` tries again
            log.warning("no process for readers yet: %s", error)

    async def load(self, tokenizer: Path, bounds: Bounds) -> None:
        """Read bodies with this tokenizer from now on. Raises `CheckpointError`, or `EngineStopped`."""
        setup = ReaderSetup(str(tokenizer), bounds, self._control)
        for attempt in range(_ATTEMPTS):
            try:
                self._launcher.load(setup)
                await self._launcher.ready()
                break
            except ProcessLost as error:
                if attempt == _ATTEMPTS - 1:
                    raise EngineStopped(f"requests cannot be read: {error}") from error
        self._tasks = [asyncio.create_task(lane.run()) for lane in (self._small, self._large)]

    async def read(self, kind: EndpointName, tenant: str, body: bytes) -> ParsedRequest[Any]:
        """See `BodyReader`."""
        lane = self._large if len(body) > LARGE else self._small
        answer = await lane.read(tenant, Job(kind, body, cpu_seconds(len(body))))
        return asked_by(answer).asked

    async def close(self) -> None:
        """End all of it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # in which a fork that was cancelled lets go of its connection
        self._launcher.close()
        await asyncio.sleep(0)  # in which connections are closed

    async def __aenter__(self) -> Self:
        self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

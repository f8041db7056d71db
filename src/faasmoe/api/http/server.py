"""The HTTP server: uvicorn, with another way to end."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from faasmoe.api.http.entrance import Entrance
from faasmoe.api.http.head_limit import HeadLimit

log = logging.getLogger(__name__)

BACKLOG = 2048  # connections that may wait to be accepted
_AT_ONCE = 16  # that are accepted in one turn of the loop
LAST_WORDS = 1.0  # seconds for telling clients that their requests end here
_LONGEST_END = 2  # seconds after which uvicorn would cancel what runs, with a traceback for each
REASON = "the server is shutting down"


class HttpServer(uvicorn.Server):
    """Serves what `entrance` lets in, until `end` is called.

    At the end new requests are refused with 503, `/health` and `/ready` say so, and running ones may go on for
    `grace` seconds. What is left then is cut off and fails with an error: an answer with 503, or an event in a stream.
    A second call of `end` does that at once. Clients that do not read are hung up on `LAST_WORDS` seconds later.
    """

    def __init__(self, entrance: Entrance, grace: float) -> None:
        super().__init__(
            uvicorn.Config(
                entrance,
                http=HeadLimit,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # clients could give themselves any address
                backlog=_AT_ONCE,  # what asyncio accepts in a row: it logs as many errors if descriptors are short
                timeout_graceful_shutdown=_LONGEST_END,
            )
        )
        self._entrance = entrance
        self._grace = grace
        self._hurry = asyncio.Event()
        self._draining: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Take no more requests; stop when none runs. Called again: stop now."""
        if self._draining is None:
            self._entrance.close(REASON)
            self._draining = asyncio.create_task(self._drain())
        else:
            self._hurry.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's would take signals from whoever starts processes for us and has to stop them."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(BACKLOG)  # uvicorn has set it to what it accepts in a row

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        hanging_up = asyncio.get_running_loop().call_later(LAST_WORDS, self._hang_up)
        try:
            await super().shutdown(sockets)
        finally:
            hanging_up.cancel()

    def _hang_up(self) -> None:
        """Requests end as if their clients had left."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def _drain(self) -> None:
        """Listening goes on, so that a client which comes now learns by a 503 that it may try elsewhere."""
        ends = [asyncio.create_task(self._entrance.idle()), asyncio.create_task(self._hurry.wait())]
        try:
            await asyncio.wait(ends, timeout=self._grace, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in ends:
                each.cancel()
        if left := self._entrance.running:
            log.warning("requests are cut off by the end of the server", extra={"requests": left})
            self._entrance.cut(REASON)
        self.should_exit = True

"""The HTTP server: uvicorn with a graceful shutdown that fails what is left instead of cancelling it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from faasmoe.api.http.entrance import Entrance
from faasmoe.api.http.head_limit import HeadLimit
from faasmoe.errors import SHUTTING_DOWN

log = logging.getLogger(__name__)

BACKLOG = 2048  # connections that may wait to be accepted
_AT_ONCE = 16  # connections that are accepted in one iteration of the event loop
LAST_WORDS = 1.0  # seconds for the error responses of requests that the shutdown ends
_LONGEST_END = 2  # seconds after which uvicorn would cancel requests, with a traceback for each


class HttpServer(uvicorn.Server):
    """Serves requests through `entrance` until `end` is called.

    Then new requests are refused with 503, `/health` and `/ready` say so, and running requests may go on for `grace`
    seconds. Requests that still run fail with an error: status 503, or an event in a stream. A second call of `end`
    does that at once. Connections of clients that do not read are closed `LAST_WORDS` seconds later.
    """

    def __init__(self, entrance: Entrance, grace: float, keep_alive: float = 5.0) -> None:
        super().__init__(
            uvicorn.Config(
                entrance,
                http=HeadLimit,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # `TrustedProxies` decides which proxies are believed
                backlog=_AT_ONCE,  # asyncio accepts as many in a row, and logs as many errors if descriptors run out
                timeout_graceful_shutdown=_LONGEST_END,
                timeout_keep_alive=keep_alive,  # type: ignore[arg-type] # it goes to a timer, which takes parts of seconds
            )
        )
        self._entrance = entrance
        self._grace = grace
        self._hurry = asyncio.Event()
        self._draining: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Refuse new requests, and stop when none runs. Called again: stop now."""
        if self._draining is None:
            self._entrance.close(SHUTTING_DOWN)
            self._draining = asyncio.create_task(self._drain())
        else:
            self._hurry.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers: the gateway has its own, which stop all processes."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(BACKLOG)  # uvicorn has set it to `_AT_ONCE`

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        hanging_up = asyncio.get_running_loop().call_later(LAST_WORDS, self._hang_up)
        try:
            await super().shutdown(sockets)
        finally:
            hanging_up.cancel()

    def _hang_up(self) -> None:
        """Close all connections; their requests end as if the clients had disconnected."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def _drain(self) -> None:
        """Wait for running requests. The server still listens: new clients get 503 and can try elsewhere."""
        ends = [asyncio.create_task(self._entrance.idle()), asyncio.create_task(self._hurry.wait())]
        try:
            await asyncio.wait(ends, timeout=self._grace, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in ends:
                each.cancel()
        if left := self._entrance.running:
            log.warning("requests are cut off by the end of the server", extra={"requests": left})
            self._entrance.cut(SHUTTING_DOWN)
        self.should_exit = True

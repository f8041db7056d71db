"""The HTTP server: uvicorn, with another way to end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from faasmoe.api.head_limit import HeadLimit
from faasmoe.orchestrator.fleet import Fleet

GRACE = 5  # seconds that running requests get at shutdown
_LAST_WORDS = 2  # seconds for telling those that are still there
_REASON = "the server is shutting down"


class HttpServer(uvicorn.Server):
    """Serves `app` until `end` is called. `ready` is called when requests are taken.

    At the end new requests are refused and running ones may go on for `GRACE` seconds. What is left is ended with an
    error: 503, or an event in a stream. A second SIGINT cuts everything off.
    """

    def __init__(self, app: ASGIApp, fleet: Fleet, ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=HeadLimit,
                log_config=None,
                access_log=False,
                proxy_headers=False,  # clients could give themselves any address
                timeout_graceful_shutdown=GRACE + _LAST_WORDS,
            )
        )
        self._fleet = fleet
        self._ready = ready

    def end(self, number: int) -> None:
        """A signal of this number has come."""
        self.handle_exit(number, None)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's would take signals from whoever starts processes for us and has to stop them."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`, which would cut off what is not done in time."""
        self._fleet.refuse(_REASON)
        end = asyncio.get_running_loop().call_later(GRACE, self._fleet.detach, _REASON)
        try:
            await super().shutdown(sockets)
        finally:
            end.cancel()

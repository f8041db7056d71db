"""End connections whose requests do not come: each holds memory, and a file of the process."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from faasmoe.api.errors import error_body


class HeadLimit(H11Protocol):
    """Uvicorn's protocol, with a limit of `seconds` for a request's line and headers.

    What has begun to come and does not end is answered with 408; a connection without a word is closed. Between two
    requests of a connection uvicorn's own limit holds until the next one begins.
    """

    seconds = 30.0

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect()
        else:  # a request is there; its body is `BodyLimit`'s business
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop()
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self._end is None:
            self._end = self.loop.call_later(self.seconds, self._expired)

    def _stop(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _expired(self) -> None:
        if self.transport.is_closing():
            return
        begun, _ = self.conn.trailing_data
        if begun and self.conn.our_state is h11.IDLE:
            self._refuse(f"the request's headers have not come within {self.seconds:g} seconds")
        self.transport.close()

    def _refuse(self, message: str) -> None:
        body = json.dumps(error_body(message, "invalid_request_error")).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        response = h11.Response(status_code=408, headers=list(headers.items()), reason=b"Request Timeout")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")

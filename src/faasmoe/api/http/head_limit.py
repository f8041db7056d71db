"""Limits on the heads of requests: they arrive in time, and cannot be misread."""

from __future__ import annotations

import asyncio
import json
import logging
from http import HTTPStatus
from typing import Any

import h11
from h11._connection import DEFAULT_MAX_INCOMPLETE_EVENT_SIZE
from uvicorn.protocols.http.h11_impl import H11Protocol

from faasmoe.api.disconnect import LAST_LOOK
from faasmoe.api.errors import error_info
from faasmoe.api.http.strict import StrictConnection, path_of
from faasmoe.api.registry import APIS, Registry

log = logging.getLogger(__name__)


class HeadLimit(H11Protocol):
    """Uvicorn's protocol, with a limit of `seconds` for a request's line and headers, and `StrictConnection`.

    A head that has begun and does not end is answered with 408, one that is not HTTP or is ambiguous with 400, in the
    shape of the API that its path belongs to; then the connection is closed. A connection without a byte is closed.
    Between two requests of a connection uvicorn's own limit holds until the next one begins.
    """

    seconds = 30.0
    apis: Registry = APIS

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        most = self.config.h11_max_incomplete_event_size
        self.conn: StrictConnection = StrictConnection(DEFAULT_MAX_INCOMPLETE_EVENT_SIZE if most is None else most)
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.conn.refusal is not None:
            return  # the connection is being closed
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect()
        else:  # the head is complete; `BodyLimit` watches the body
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn when h11 has refused the received bytes."""
        error = self.conn.refusal
        status = HTTPStatus(400 if error is None else error.error_status_hint)
        text = msg if error is None else str(error)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            head = self.conn.refused
            path = path_of(head) if head or self.scope is None else self.scope["path"]
            self._refuse(status, path, f"this is not a request that can be taken: {text}")
        else:  # its response has begun
            log.info("connection closed", extra={"reason": "malformed_body", "client": self._address})
        self.transport.close()

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def timeout_keep_alive_handler(self) -> None:
        """Wait for `LAST_LOOK` first: uvicorn would close the connection of a request that has arrived unread."""
        give_up = super().timeout_keep_alive_handler
        self.timeout_keep_alive_task = self.loop.call_later(LAST_LOOK, give_up)

    def _expect(self) -> None:
        if self._end is None:
            self._end = self.loop.call_later(self.seconds, self._look)

    def _look(self) -> None:
        self._end = self.loop.call_later(LAST_LOOK, self._expired)

    def _stop(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _expired(self) -> None:
        if self.transport.is_closing():
            return
        begun, _ = self.conn.trailing_data
        if begun and self.conn.our_state is h11.IDLE:
            self._refuse(
                HTTPStatus.REQUEST_TIMEOUT,
                path_of(begun),
                f"the request's headers have not come within {self.seconds:g} seconds",
            )
        self.transport.close()

    def _refuse(self, status: HTTPStatus, path: str, message: str) -> None:
        """Respond to a request that no application sees."""
        log.info(
            "request refused",
            extra={"status": status.value, "reason": status.name.lower(), "client": self._address},
        )
        api, told = self.apis.shape(path), error_info(status.value, message)
        body = json.dumps(api.error_body(told)).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        headers |= api.error_headers(told)
        response = h11.Response(status_code=status, headers=list(headers.items()), reason=status.phrase.encode())
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")

"""The entrance of all requests: answers for the server's health, and refuses requests while the server is not ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from faasmoe.api.errors import error_info, respond
from faasmoe.api.http.health import Health
from faasmoe.api.registry import APIS, Registry
from faasmoe.api.request_log import RequestLog

HEALTH, READY, METRICS = "/health", "/ready", "/metrics"
_LOADING_SECONDS = 5  # `Retry-After` while the model is loaded
_STOPPING_SECONDS = 10  # and while the server stops: by then another may have started


class Entrance:
    """ASGI application that answers `/health` and `/ready` at any time, and passes other requests on once it is open.

    Before `open` and after `close` other requests are refused with 503; `/metrics` can be read after `close`, too.
    """

    def __init__(self, health: Health, apis: Registry = APIS) -> None:
        self._health = health
        self._apis = apis
        self._app: ASGIApp | None = None
        self._cut: Callable[[str], None] | None = None
        self._logged = RequestLog(self._pass, apis)
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """The number of requests that were passed on and have not ended."""
        return self._running

    def open(self, app: ASGIApp, cut: Callable[[str], None]) -> None:
        """Pass requests on to `app`. `cut` makes all running requests fail with a message."""
        self._app, self._cut = app, cut

    def cut(self, reason: str) -> None:
        """Make running requests fail with this message."""
        if self._cut is not None:
            self._cut(reason)

    def close(self, reason: str) -> None:
        """Refuse new requests; running ones go on."""
        self._health.stopping = reason

    async def idle(self) -> None:
        """Return when no request runs."""
        await self._idle.wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on. HEAD is handled as GET; the HTTP server leaves the body out."""
        if scope["type"] != "http":
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        if scope["path"] in (HEALTH, READY):
            await self._tell(scope["path"], scope["method"])(scope, receive, send)
        else:
            await self._logged(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None or (self._health.stopping is not None and scope["path"] != METRICS):
            await self._refusal(scope["path"])(scope, receive, send)
            return
        self._running += 1
        self._idle.clear()
        try:
            await self._app(scope, receive, send)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    def _tell(self, path: str, method: str) -> JSONResponse:
        if method != "GET":
            told = error_info(405, "Method Not Allowed")
            return respond(self._apis.shape(path), told, {"Allow": "GET, HEAD"})
        well = self._health.ready
        report: dict[str, Any] = self._health.report()
        if path == READY:
            report = {"ready": well, **report}
        return JSONResponse(report, 200 if well else 503, headers={"Cache-Control": "no-store"})

    def _refusal(self, path: str) -> JSONResponse:
        health = self._health
        seconds = _LOADING_SECONDS if health.stopping is None else _STOPPING_SECONDS
        code = "engine_stopped" if health.stopping else "engine_starting"
        text = f"{health.stopping or health.stage}; try again"
        told = error_info(503, text, code=code, retry_after=seconds)
        return respond(self._apis.shape(path), told, {"Connection": "close"})

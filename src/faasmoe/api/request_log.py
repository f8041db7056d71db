"""A log line for each request that failed or was refused: reason, route, tenant and client, and no text of its body."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faasmoe.api.disconnect import CLIENT_LEFT, address_of
from faasmoe.api.registry import APIS, Registry
from faasmoe.tenancy.authentication import Caller

log = logging.getLogger(__name__)

_KEY = re.compile(r"(fm-(?:admin-)?[a-z0-9]{10})-")  # the id that a key begins with
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNKNOWN = "-"
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")  # an id that a client may give: it goes into log lines and a header


@dataclass
class Entry:
    """The id of the running request, and the reason for its error."""

    id: str = field(default_factory=lambda: f"req-{uuid.uuid4().hex}")
    reason: str | None = None  # of the error that was answered


_current: ContextVar[Entry | None] = ContextVar("request", default=None)


def note(status: int, code: str | None) -> None:
    """Note that the running request ends with an error; without a code, its reason is the side that is at fault."""
    if (entry := _current.get()) is not None:
        entry.reason = code or ("server_error" if status >= 500 else "invalid_request_error")


def log_fields() -> Mapping[str, str]:
    """The `extra` of log lines about the running request: its id."""
    entry = _current.get()
    return {} if entry is None else {"request": entry.id}


class RequestLog:
    """ASGI middleware that logs failed and refused requests by an id, which responses have as `x-request-id`.

    The id is the request's own `X-Request-Id` if it has the form of one, else a new one.
    """

    def __init__(self, app: ASGIApp, apis: Registry = APIS) -> None:
        self._app = app
        self._apis = apis

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and log it if it fails or is refused."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        entry, status, began = _entry(scope), 0, time.monotonic()
        scope.setdefault("state", {})

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                for name in ("x-request-id", "request-id"):  # OpenAI's name of it, and Anthropic's
                    MutableHeaders(scope=message)[name] = entry.id
            await send(message)

        token = _current.set(entry)
        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            entry.reason = entry.reason or type(error).__name__
            raise
        finally:
            _current.reset(token)
            if entry.reason or (status >= 400 and status != CLIENT_LEFT):
                _write(entry, status, scope, _key(scope, self._apis), time.monotonic() - began)


def _entry(scope: Scope) -> Entry:
    given = Headers(scope=scope).getlist("x-request-id")
    taken = len(given) == 1 and _ID.fullmatch(given[0]) and not _KEY.search(given[0])  # no key goes into the log
    return Entry(given[0]) if taken else Entry()


def _write(entry: Entry, status: int, scope: Scope, key: str, seconds: float) -> None:
    failed = status >= 500 or status < 400  # an error after the headers of a response is an error of the server
    log.log(
        logging.WARNING if failed else logging.INFO,
        "request failed" if failed else "request refused",
        extra={
            "request": entry.id,
            "status": status,
            "reason": entry.reason or str(status),
            "method": scope["method"] if scope["method"] in _METHODS else _UNKNOWN,
            "route": getattr(scope.get("route"), "path", _UNKNOWN),
            "tenant": _caller(scope).name,
            "key": key,
            "client": address_of(scope),
            "seconds": round(seconds, 4),
        },
    )


def _caller(scope: Scope) -> Caller:
    caller = scope["state"].get("caller")
    return caller if isinstance(caller, Caller) else Caller(None, "")


def _key(scope: Scope, apis: Registry) -> str:
    """The id of the key that was sent, valid or not; empty if it has not the form of this server's keys."""
    key = apis.shape(scope["path"]).key(Headers(scope=scope))
    found = _KEY.match(key or "")
    return found[1] if found else ""

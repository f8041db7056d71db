"""Limits on the size of bodies, on the time that they take, and on the memory of all bodies together."""

from __future__ import annotations

import asyncio
import zlib

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faasmoe.api.disconnect import LAST_LOOK
from faasmoe.errors import EngineBusy, EngineStopped, RequestError

MAX_BODY = 4 << 20  # bytes: about a million tokens of text
MAX_SECONDS = 30.0  # for all of it
MAX_HELD = 64 << 20  # bytes of bodies that are not parsed yet, of all tenants together
MAX_HELD_EACH = 16 << 20  # of one tenant
_LONGEST_KIND = 100  # characters of a Content-Type that an error message repeats


class BodyLimit:
    """ASGI middleware that limits each body, and all bodies together.

    It responds with 413 to a body of more than `MAX_BODY` bytes, with 408 to one that takes more than `seconds`, and
    with 429 to one that would exceed `MAX_HELD_EACH` or `MAX_HELD`. Bytes count until the response begins: the body has
    been parsed by then.
    """

    def __init__(self, app: ASGIApp, seconds: float = MAX_SECONDS) -> None:
        self._app = app
        self._seconds = seconds
        self._held: dict[str, int] = {}  # by tenant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count its bytes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller = scope.get("state", {}).get("caller")
        body = _Body(self, caller.name if caller else "", receive)
        try:
            await self._app(scope, body.receive, body.letting_go(send))
        finally:
            body.let_go()

    @property
    def seconds(self) -> float:
        """The seconds that a body may take."""
        return self._seconds

    def hold(self, tenant: str, size: int) -> None:
        """Count `size` bytes. Raises `EngineBusy` if they exceed a limit."""
        own = self._held.get(tenant, 0) + size
        if own > MAX_HELD_EACH or sum(self._held.values()) + size > MAX_HELD:
            raise EngineBusy("too many long bodies come at once", retry_after=1.0)
        self._held[tenant] = own

    def let_go(self, tenant: str, size: int) -> None:
        """Stop counting `size` bytes."""
        left = self._held.get(tenant, 0) - size
        if left > 0:
            self._held[tenant] = left
        else:
            self._held.pop(tenant, None)


class _Body:
    """The body of one request while it arrives."""

    def __init__(self, limit: BodyLimit, tenant: str, receive: Receive) -> None:
        self._limit = limit
        self._tenant = tenant
        self._receive = receive
        self._end = asyncio.get_running_loop().time() + limit.seconds
        self._looked = False  # the last look has begun
        self._received = self._held = 0
        self._whole = False

    async def _in_time(self) -> Message:
        """The next message; after the deadline only if it has arrived already. Raises `TimeoutError`."""
        try:
            async with asyncio.timeout_at(self._end):
                return await self._receive()
        except TimeoutError:
            if self._looked:
                raise
        self._looked = True
        async with asyncio.timeout(LAST_LOOK):
            return await self._receive()

    async def receive(self) -> Message:
        """The next message of the request. Raises `HTTPException` or `EngineBusy`."""
        if self._whole:  # the only message left is the disconnect
            return await self._receive()
        try:
            message = await self._in_time()
        except TimeoutError:
            raise HTTPException(
                408, f"the body has not come within {self._limit.seconds:g} seconds", {"Connection": "close"}
            ) from None
        size = len(message.get("body", b""))
        self._received += size
        self._whole = not message.get("more_body", False)
        if self._received > MAX_BODY:
            raise HTTPException(413, f"the body is larger than {MAX_BODY} bytes", {"Connection": "close"})
        self._limit.hold(self._tenant, size)
        self._held += size
        return message

    def letting_go(self, send: Send) -> Send:
        """Wrap `send` so that the body stops counting when the response begins."""

        async def sending(message: Message) -> None:
            self.let_go()
            await send(message)

        return sending

    def let_go(self) -> None:
        """Stop counting the body. May be called more than once."""
        self._limit.let_go(self._tenant, self._held)
        self._held = 0


async def body_of(request: Request) -> bytes:
    """Read the whole body, without keeping a copy in the request.

    A body that is packed by gzip is unpacked, within the same limit; others are refused with 415. Raises `RequestError`
    if Content-Type is not JSON: without a preflight, a web page can send plain text, or a body of no type, to any
    server. A body of no type is taken if no web page has sent it, as the header Origin would tell.
    """
    parts: list[bytes] = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise EngineStopped("the client has left")  # nobody receives it
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    headers = request.headers
    _check_kind(headers.get("content-type", ""), from_a_page="origin" in headers or "sec-fetch-site" in headers)
    return _unpacked(b"".join(parts), headers.get("content-encoding", "").strip().lower())


def _unpacked(body: bytes, encoding: str) -> bytes:
    """Raises `HTTPException` for another encoding than gzip, and for a body of more than `MAX_BODY` bytes."""
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise HTTPException(
            415, f"the header Content-Encoding is {encoding[:_LONGEST_KIND]!r}: send gzip, or none"
        )
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        whole = unpacker.decompress(body, MAX_BODY + 1)
    except zlib.error:
        raise RequestError("the body is not what its header Content-Encoding says: gzip") from None
    if len(whole) > MAX_BODY:
        raise HTTPException(413, f"the body is larger than {MAX_BODY} bytes")
    if not unpacker.eof:
        raise RequestError("the body ends before its gzip does")
    return whole


def _check_kind(header: str, *, from_a_page: bool) -> None:
    kind = header.partition(";")[0].strip().lower()
    if not kind and not from_a_page:
        return
    if not kind:
        raise RequestError("the header Content-Type is missing: send Content-Type: application/json")
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise RequestError(
            f"the header Content-Type is {kind[:_LONGEST_KIND]!r}: send Content-Type: application/json"
        )

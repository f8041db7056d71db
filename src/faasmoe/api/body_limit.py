"""Refuse bodies that no prompt needs, before they fill the memory, and those that do not come."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 4 << 20  # bytes: about a million tokens of text
MAX_SECONDS = 30.0  # for all of it


class BodyLimit:
    """ASGI middleware that answers 413 to a body of more than `MAX_BODY` bytes, announced or not, and 408 to one that
    takes more than `seconds`."""

    def __init__(self, app: ASGIApp, seconds: float = MAX_SECONDS) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting what it brings."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = 0
        whole = False
        end = asyncio.get_running_loop().time() + self._seconds

        async def counted() -> Message:
            nonlocal received, whole
            if whole:  # all that can still come is that the client leaves
                return await receive()
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408, f"the body has not come within {self._seconds:g} seconds", {"Connection": "close"}
                ) from None
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > MAX_BODY:
                raise HTTPException(413, f"the body is larger than {MAX_BODY} bytes", {"Connection": "close"})
            return message

        await self._app(scope, counted, send)

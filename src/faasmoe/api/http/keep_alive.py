"""Keep-alive messages in a stream of server-sent events, for as long as there is nothing else to send.

Clients and proxies give up on a connection that says nothing: httpx after 5 seconds unless told otherwise, nginx after
60. Each API says what its clients skip: a comment (HTML standard, 9.2.6), or an event that means nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from starlette.types import Message, Send

INTERVAL = 3.0  # seconds without any data, after which a keep-alive message is sent


class KeepAlive:
    """The `send` of a streamed response, which sends a keep-alive message after each `interval` seconds of silence.

    The first interval begins at `since` (of the loop's clock). Use it as an async context manager.
    """

    def __init__(self, send: Send, message: Callable[[], bytes], interval: float, since: float) -> None:
        """`message` returns whole events or comments; nothing is sent if it returns no bytes."""
        self._send = send
        self._message = message
        self._interval = interval
        self._latest = since
        self._sending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])
            if not self._sending.cancelled():
                self._sending.result()  # raises the error that has ended it

    async def __call__(self, message: Message) -> None:
        """Send a part of the response."""
        if message["type"] == "http.response.start":
            await self._send(message)
            self._sending = asyncio.create_task(self._run())
            return
        if self._sending is not None and not message.get("more_body"):
            self._sending.cancel()  # nothing may follow the end
        self._latest = asyncio.get_running_loop().time()
        await self._send(message)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            left = self._latest + self._interval - loop.time()
            if left > 0:
                await asyncio.sleep(left)
            elif data := self._message():
                await self({"type": "http.response.body", "body": data, "more_body": True})
            else:
                self._latest = loop.time()

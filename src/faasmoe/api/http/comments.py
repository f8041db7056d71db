"""Comments in a stream of server-sent events, for as long as there is nothing else to send.

Clients and proxies give up on a connection that says nothing: httpx after 5 seconds unless told otherwise, nginx after
60. A comment is a line that begins with a colon, which every reader of such streams skips (HTML standard, 9.2.6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from starlette.types import Message, Send

SILENCE = 3.0  # seconds without anything, after which there is a comment


class Commented:
    """The `send` of a streamed response, and comments that say what its client waits for.

    There is one whenever nothing has been sent for `silence` seconds, from `since` on (of the loop's clock). Use it as
    an async context manager.
    """

    def __init__(self, send: Send, awaited: Callable[[], str], silence: float, since: float) -> None:
        """`awaited` says what is waited for now, in words of our own, in one line."""
        self._send = send
        self._awaited = awaited
        self._silence = silence
        self._latest = since
        self._commenting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._commenting is not None:
            self._commenting.cancel()
            await asyncio.wait([self._commenting])
            if not self._commenting.cancelled():
                self._commenting.result()  # raises what has ended it

    async def __call__(self, message: Message) -> None:
        """Send a part of the response."""
        if message["type"] == "http.response.start":
            await self._send(message)
            self._commenting = asyncio.create_task(self._comment())
            return
        if self._commenting is not None and not message.get("more_body"):
            self._commenting.cancel()  # nothing may follow the end
        self._latest = asyncio.get_running_loop().time()
        await self._send(message)

    async def _comment(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            left = self._latest + self._silence - loop.time()
            if left > 0:
                await asyncio.sleep(left)
            else:
                comment = f": waiting, {self._awaited()}\n\n".encode()
                await self({"type": "http.response.body", "body": comment, "more_body": True})

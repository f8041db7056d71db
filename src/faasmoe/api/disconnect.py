"""Whether the client is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from starlette.types import Receive, Scope

# Seconds in which what has come is read before a client is given up. A process that was stopped, or a machine that was
# paused, finds timers due before it has read what came meanwhile.
LAST_LOOK = 0.1
CLIENT_LEFT = 499  # nginx's status for a request whose client has left; nobody reads it

T = TypeVar("T")


def address_of(scope: Scope) -> str:
    """Where a request comes from: as trusted proxies say, if that was noted, else the other end of the connection."""
    noted = scope.get("state", {}).get("address")
    client = scope.get("client")
    return str(noted if noted is not None else client[0] if client else "")


async def while_connected(receive: Receive, work: Coroutine[None, None, T]) -> T | None:
    """What `work` returns or raises; None, and `work` cancelled, if the client leaves first.

    `receive` belongs to a request whose body has been read: all that can still come is that the client has left.
    """
    answer = asyncio.create_task(work)
    left = asyncio.create_task(_departure(receive))
    try:
        await asyncio.wait((answer, left), return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None
    finally:
        answer.cancel()
        left.cancel()
        await asyncio.gather(answer, left, return_exceptions=True)


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

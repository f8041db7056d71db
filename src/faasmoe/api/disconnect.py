"""Clients that disconnect: noticing it, and cancelling their work."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from starlette.types import Receive, Scope

# Seconds in which received data is read before a connection is given up. After a process was stopped, or a machine was
# paused, timers fire before the data that has arrived meanwhile is read.
LAST_LOOK = 0.1
CLIENT_LEFT = 499  # nginx's status for a client that has disconnected; nobody receives it

T = TypeVar("T")


def address_of(scope: Scope) -> str:
    """The client's address: the one that trusted proxies name, if it was noted, else the peer of the connection."""
    noted = scope.get("state", {}).get("address")
    client = scope.get("client")
    return str(noted if noted is not None else client[0] if client else "")


async def while_connected(receive: Receive, work: Coroutine[None, None, T]) -> T | None:
    """Run `work` and return its result. If the client disconnects first, cancel `work` and return None.

    `receive` belongs to a request whose body has been read: the only message left is the disconnect.
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

"""Limits how fast one client is refused, so that a flood of bad requests costs other clients nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faasmoe.api.disconnect import address_of

RATE = 10.0  # refusals a second that a client gets
BURST = 20  # refusals that it gets at once
_SOON = 1e-3  # seconds; shorter waits are skipped
MOST_WAITING = 64  # refusals of one client that wait; further ones are sent at once and close the connection


class RefusalPace:
    """ASGI middleware that sends a client `BURST` refusals (status 4xx) at once, and then `RATE` a second.

    A client is a tenant, or the address of requests without a valid key. Only the client's own connection waits. A
    server that needs no key has no other clients to protect, and does not wait.
    """

    def __init__(
        self,
        app: ASGIApp,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._app = app
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._sleep = sleep
        self._paid: dict[str, float] = {}  # the time at which a client has used up its refusals at `RATE`
        self._waiting: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and delay its response if that is one refusal too many."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            refused = message["type"] == "http.response.start" and 400 <= message["status"] < 500
            if refused and (client := _client_of(scope)) and not await self._turn(client):
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, sending)

    async def _turn(self, client: str) -> bool:
        """Wait for the client's turn. Returns False if too many refusals wait already."""
        now = self._clock()
        if len(self._paid) > 1000:
            self._paid = {who: paid for who, paid in self._paid.items() if paid > now}
        paid = max(self._paid.get(client, 0.0), now) + 1 / RATE
        wait = paid - now - BURST / RATE
        if wait >= _SOON and self._waiting.get(client, 0) >= MOST_WAITING:
            return False
        self._paid[client] = paid
        if wait < _SOON:
            return True
        self._waiting[client] = self._waiting.get(client, 0) + 1
        try:
            await self._sleep(wait)
        finally:
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]
        return True


def _client_of(scope: Scope) -> str | None:
    caller = scope.get("state", {}).get("caller")
    if caller is not None:
        return f"tenant {caller.name}" if caller.name else None
    return f"address {address_of(scope)}"

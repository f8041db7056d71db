"""Who sends a request: checked before its body is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faasmoe.api.http.disconnect import address_of
from faasmoe.api.openai.errors import describe, headers
from faasmoe.errors import FaasmoeError, LimitExceeded, Unauthenticated, WrongHost
from faasmoe.tenancy.authentication import Authentication, Caller
from faasmoe.tenancy.limits.limits import Limits, Standing
from faasmoe.tenancy.proxies import TrustedProxies
from faasmoe.tenancy.tenants import Tenant

_TENANTS = "/v1/"  # what such paths begin with needs a tenant's key
_METRICS = "/metrics"  # shows all tenants: needs an admin's, if there are tenants
_REFUSALS = (Unauthenticated, WrongHost, LimitExceeded)


class TenantsOnly:
    """ASGI middleware: lets those in who have a key. Who it is is in `scope["state"]["caller"]`.

    What is posted counts towards the tenant's limits, before its body is read. Answers carry what is left of them.
    `limited` is told of refusals, with the tenant's name.
    """

    def __init__(
        self,
        app: ASGIApp,
        authentication: Authentication,
        limits: Limits,
        limited: Callable[[LimitExceeded, str], None],
    ) -> None:
        self._app = app
        self._authentication = authentication
        self._limits = limits
        self._limited = limited

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with 401, 403 or 429."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            caller = self._caller(scope)
        except _REFUSALS as error:
            await refusal(error)(scope, receive, send)
            return
        if caller is None:
            await self._app(scope, receive, send)
            return
        sending = self._with_limits(caller, send)
        if caller.tenant is None or scope["method"] != "POST":
            scope.setdefault("state", {})["caller"] = caller
            await self._app(scope, receive, sending)
            return
        await self._within_limits(caller, caller.tenant, scope, receive, sending)

    async def _within_limits(
        self, caller: Caller, tenant: Tenant, scope: Scope, receive: Receive, send: Send
    ) -> None:
        announced = Headers(scope=scope).get("content-length")
        try:
            arrival = self._limits.arrive(tenant, int(announced or 0))
        except LimitExceeded as error:
            self._limited(error, tenant.name)
            await refusal(error)(scope, receive, send)
            return

        async def counted() -> Message:
            message = await receive()
            arrival.received(len(message.get("body", b"")))
            return message

        scope.setdefault("state", {})["caller"] = replace(caller, arrival=arrival)
        try:
            await self._app(scope, receive if announced else counted, send)
        finally:
            arrival.leave()

    def _caller(self, scope: Scope) -> Caller | None:
        """Who asks; None where it does not matter."""
        door, path = self._authentication, scope.get("path", "")
        door.check_host(Headers(scope=scope).getlist("host"))
        address = note_address(scope, door.proxies)
        if path.startswith(_TENANTS):
            return door.tenant(key_of(scope), address)
        if path == _METRICS and not door.open:
            door.admin(key_of(scope), address)
        return None

    def _with_limits(self, caller: Caller, send: Send) -> Send:
        tenant = caller.tenant
        if tenant is None:
            return send

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(rate_headers(self._limits.standing(tenant)))
            await send(message)

        return sending


class AdminsOnly:
    """ASGI middleware: lets nobody in without an admin's key."""

    def __init__(self, app: ASGIApp, authentication: Authentication) -> None:
        self._app = app
        self._authentication = authentication

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with 401 or 429."""
        if scope["type"] == "http":
            try:
                address = note_address(scope, self._authentication.proxies)
                self._authentication.admin(key_of(scope), address)
            except _REFUSALS as error:
                await refusal(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def key_of(scope: Scope) -> str | None:
    """The bearer token of a request."""
    kind, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" and token.strip() else None


def note_address(scope: Scope, proxies: TrustedProxies) -> str:
    """Where a request comes from, from now on known by `address_of` as well.

    Only the word of trusted proxies is taken about others: anybody can say that.
    """
    forwarded = Headers(scope=scope).getlist("x-forwarded-for")
    address = proxies.client(address_of(scope), forwarded)
    scope.setdefault("state", {})["address"] = address
    return address


def rate_headers(standings: Sequence[Standing]) -> dict[str, str]:
    """What is left of limits, as OpenAI has it."""
    found = {}
    for standing in standings:
        found[f"x-ratelimit-limit-{standing.kind}"] = str(standing.limit)
        found[f"x-ratelimit-remaining-{standing.kind}"] = str(standing.remaining)
        found[f"x-ratelimit-reset-{standing.kind}"] = duration(standing.reset)
    return found


def duration(seconds: float) -> str:
    """As OpenAI writes it: 250ms, 8s, 1m0s. Rounded up."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def refusal(error: FaasmoeError) -> JSONResponse:
    """An error as an answer."""
    status, body = describe(error)
    return JSONResponse(body, status, headers=headers(error))

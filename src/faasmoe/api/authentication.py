"""Who sends a request: checked before its body is read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faasmoe.api.errors import describe, headers
from faasmoe.errors import LimitExceeded, Unauthenticated
from faasmoe.tenancy.authentication import Authentication, Caller
from faasmoe.tenancy.limits import Limits, Standing

_TENANTS = "/v1/"  # what such paths begin with needs a tenant's key
_METRICS = "/metrics"  # shows all tenants: needs an admin's, if there are tenants


class TenantsOnly:
    """ASGI middleware: lets those in who have a key. Who it is is in `scope["state"]["caller"]`.

    Answers carry what is left of the tenant's limits.
    """

    def __init__(self, app: ASGIApp, authentication: Authentication, limits: Limits) -> None:
        self._app = app
        self._authentication = authentication
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with 401 or 429."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path.startswith(_TENANTS) or path == _METRICS):
            await self._app(scope, receive, send)
            return
        try:
            if path == _METRICS:
                if not self._authentication.open:
                    self._authentication.admin(key_of(scope), address_of(scope))
                await self._app(scope, receive, send)
                return
            caller = self._authentication.tenant(key_of(scope), address_of(scope))
        except (Unauthenticated, LimitExceeded) as error:
            await refusal(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, self._with_limits(caller, send))

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
                self._authentication.admin(key_of(scope), address_of(scope))
            except (Unauthenticated, LimitExceeded) as error:
                await refusal(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def key_of(scope: Scope) -> str | None:
    """The bearer token of a request."""
    kind, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" and token.strip() else None


def address_of(scope: Scope) -> str:
    """Where a request comes from. A proxy's word about others is not taken: anybody can say that."""
    client = scope.get("client")
    return client[0] if client else ""


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


def refusal(error: Unauthenticated | LimitExceeded) -> JSONResponse:
    """An error as an answer."""
    status, body = describe(error)
    return JSONResponse(body, status, headers=headers(error))

"""Authentication and rate limits in front of all APIs, before a body is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faasmoe.api.disconnect import address_of
from faasmoe.api.errors import describe, respond
from faasmoe.api.registry import APIS, Registry
from faasmoe.errors import FaasmoeError, LimitExceeded, Unauthenticated, WrongHost
from faasmoe.tenancy.authentication import Authentication, Caller
from faasmoe.tenancy.limits.limits import Limits
from faasmoe.tenancy.proxies import TrustedProxies
from faasmoe.tenancy.tenants import Tenant

_METRICS = "/metrics"  # has series of all tenants: it needs an admin's key if there are tenants
_REFUSALS = (Unauthenticated, WrongHost, LimitExceeded)


class TenantMiddleware:
    """ASGI middleware that lets requests with a tenant's key pass, with the `Caller` in `scope["state"]["caller"]`.

    POST requests count towards the tenant's limits before their bodies are read. Responses have headers with the limits
    and what is left of them. `limited` is called with each refusal and the tenant's name.
    """

    def __init__(
        self,
        app: ASGIApp,
        authentication: Authentication,
        limits: Limits,
        limited: Callable[[LimitExceeded, str], None],
        apis: Registry = APIS,
    ) -> None:
        self._app = app
        self._authentication = authentication
        self._limits = limits
        self._limited = limited
        self._apis = apis

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with 401, 403 or 429."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            caller = self._caller(scope)
        except _REFUSALS as error:
            await refusal(error, scope, self._apis)(scope, receive, send)
            return
        if caller is None:
            await self._app(scope, receive, send)
            return
        sending = self._with_limits(caller, scope["path"], send)
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
            await refusal(error, scope, self._apis)(scope, receive, send)
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
        """The sender of a request; None for paths that need no key."""
        door, path = self._authentication, scope.get("path", "")
        door.check_host(Headers(scope=scope).getlist("host"))
        address = note_address(scope, door.proxies)
        key = self._apis.shape(path).key(Headers(scope=scope))
        if self._apis.of(path) is not None:
            return door.tenant(key, address)
        if path == _METRICS and not door.open:
            door.admin(key, address)
        return None

    def _with_limits(self, caller: Caller, path: str, send: Send) -> Send:
        tenant = caller.tenant
        if tenant is None:
            return send
        api = self._apis.shape(path)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(api.rate_headers(self._limits.standing(tenant)))
            await send(message)

        return sending


class AdminMiddleware:
    """ASGI middleware that lets requests with an admin's key pass."""

    def __init__(self, app: ASGIApp, authentication: Authentication) -> None:
        self._app = app
        self._authentication = authentication

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with 401 or 429."""
        if scope["type"] == "http":
            try:
                address = note_address(scope, self._authentication.proxies)
                self._authentication.admin(APIS.shape(scope["path"]).key(Headers(scope=scope)), address)
            except _REFUSALS as error:
                await refusal(error, scope, APIS)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def note_address(scope: Scope, proxies: TrustedProxies) -> str:
    """Find the client's address, and keep it for `address_of`.

    X-Forwarded-For counts only from trusted proxies: any client can send it.
    """
    forwarded = Headers(scope=scope).getlist("x-forwarded-for")
    address = proxies.client(address_of(scope), forwarded)
    scope.setdefault("state", {})["address"] = address
    return address


def refusal(error: FaasmoeError, scope: Scope, apis: Registry) -> JSONResponse:
    """The response to a refused request, in the shape of the API that its path belongs to."""
    api, told = apis.shape(scope["path"]), describe(error)
    if isinstance(error, Unauthenticated) and api.key(Headers(scope=scope)) is None:
        told = replace(told, message=f"{told.message}: send it as '{api.key_form}'")
    return respond(api, told)

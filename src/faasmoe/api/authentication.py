"""Who sends a request: checked before its body is read."""

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

_METRICS = "/metrics"  # shows all tenants: needs an admin's, if there are tenants
_REFUSALS = (Unauthenticated, WrongHost, LimitExceeded)


class TenantMiddleware:
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
        """Who asks; None where it does not matter."""
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
    """ASGI middleware: lets nobody in without an admin's key."""

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
    """Where a request comes from, from now on known by `address_of` as well.

    Only the word of trusted proxies is taken about others: anybody can say that.
    """
    forwarded = Headers(scope=scope).getlist("x-forwarded-for")
    address = proxies.client(address_of(scope), forwarded)
    scope.setdefault("state", {})["address"] = address
    return address


def refusal(error: FaasmoeError, scope: Scope, apis: Registry) -> JSONResponse:
    """The response to a request that may not pass, in the shape of the API that its path belongs to."""
    api, told = apis.shape(scope["path"]), describe(error)
    if isinstance(error, Unauthenticated) and api.key(Headers(scope=scope)) is None:
        told = replace(told, message=f"{told.message}: send it as '{api.key_form}'")
    return respond(api, told)

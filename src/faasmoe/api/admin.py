"""The admin API: tenants, keys and usage, at an address of its own, for admins' keys only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict
from starlette.types import ASGIApp, Receive, Scope, Send

from faasmoe import __version__
from faasmoe.api import errors
from faasmoe.api.authentication import AdminMiddleware
from faasmoe.api.http.body_limit import BodyLimit
from faasmoe.api.metering.usage import Day, Grouping, UsageQueries
from faasmoe.api.metrics.metrics import Metrics, add_metrics
from faasmoe.tenancy.budget import Budget
from faasmoe.tenancy.keys import create_key, list_keys, revoke_key
from faasmoe.tenancy.service import TenancyService
from faasmoe.tenancy.tenants import (
    Tenant,
    add_tenant,
    check_name,
    list_tenants,
    remove_tenant,
    set_tenant,
    show_tenant,
)

_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound; IPv4 addresses on a socket for both have colons, too


class Settings(BaseModel):
    """Settings of a tenant; null removes a limit."""

    model_config = ConfigDict(extra="forbid", strict=True)

    weight: float = 1.0
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    budget: str | None = None

    def given(self) -> dict[str, Any]:
        """The fields that were sent. Raises `TenancyError`."""
        fields = self.model_dump(exclude_unset=True, exclude={"name"})
        if fields.get("budget") is not None:
            fields["budget"] = Budget.parse(fields["budget"])
        return fields


class NewTenant(Settings):
    """A tenant to add."""

    name: str


class NewKey(BaseModel):
    """A key to create."""

    model_config = ConfigDict(extra="forbid", strict=True)

    expires_in: float | None = None  # days


def create_admin_app(tenancy: TenancyService, metrics: Metrics) -> FastAPI:
    """Build the admin API's FastAPI application."""
    app = FastAPI(title="FaaSMoE admin", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit)
    app.add_middleware(AdminMiddleware, authentication=tenancy.authentication)
    errors.install(app)
    _add_tenants(app, tenancy)
    _add_keys(app, tenancy)
    _add_usage(app, tenancy)
    add_metrics(app, metrics)
    return app


class ListenerRouter:
    """ASGI application that passes requests on the admin socket to the admin application, and all others to `app`.

    `admin_at` and `app_at` are the addresses on which the two sockets listen, as `getsockname` returns them. They may
    share a port on different addresses.
    """

    def __init__(self, app: ASGIApp, admin: ASGIApp, app_at: Sequence[Any], admin_at: Sequence[Any]) -> None:
        self._app = app
        self._admin = admin
        self._app_at = _where(app_at)
        self._admin_at = _where(admin_at)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on. `scope["server"]` is the socket's own address, which clients cannot set."""
        server = scope.get("server")
        to_admin = scope["type"] == "http" and server is not None and self._to_admin(*_where(server))
        await (self._admin if to_admin else self._app)(scope, receive, send)

    def _to_admin(self, host: str, port: int) -> bool:
        """Whether a request on this socket is for the admin. The kernel lets no two sockets share port and address."""
        if (host, port) == self._app_at:
            return False
        return self._admin_at in ((host, port), (_ANY[":" in host], port))


def _where(address: Sequence[Any]) -> tuple[str, int]:
    return str(address[0]), int(address[1] or 0)


# FastAPI runs functions without `async` on threads, where they can wait for the database.


def _add_tenants(app: FastAPI, tenancy: TenancyService) -> None:
    database = tenancy.database

    @app.get("/admin/tenants")
    def tenants() -> dict[str, Any]:
        return {"object": "list", "data": [tenant.facts() for tenant in list_tenants(database)]}

    @app.post("/admin/tenants", status_code=201)
    def add(body: NewTenant) -> dict[str, Any]:
        return add_tenant(database, Tenant(body.name, **body.given())).facts()

    @app.get("/admin/tenants/{name}")
    def show(name: str) -> dict[str, Any]:
        return show_tenant(database, name).facts()

    @app.patch("/admin/tenants/{name}")
    def change(name: str, body: Settings) -> dict[str, Any]:
        return set_tenant(database, name, body.given()).facts()

    @app.delete("/admin/tenants/{name}", status_code=204)
    def remove(name: str) -> None:
        remove_tenant(database, name)


def _add_keys(app: FastAPI, tenancy: TenancyService) -> None:
    database = tenancy.database

    @app.get("/admin/tenants/{name}/keys")
    def keys(name: str) -> dict[str, Any]:
        return {"object": "list", "data": [key.facts() for key in list_keys(database, name)]}

    @app.post("/admin/tenants/{name}/keys", status_code=201)
    def create(name: str, body: NewKey) -> dict[str, Any]:
        text, key = create_key(database, name, body.expires_in)
        return {"key": text, **key.facts()}

    @app.delete("/admin/keys/{key_id}")
    def revoke(key_id: str) -> dict[str, Any]:
        return revoke_key(database, key_id).facts()


def _add_usage(app: FastAPI, tenancy: TenancyService) -> None:
    queries = UsageQueries(tenancy)

    @app.get("/admin/usage")
    async def usage(
        tenant: str | None = None,
        first: Annotated[Day, Query(alias="from")] = None,
        last: Annotated[Day, Query(alias="to")] = None,
        by: Grouping = None,
    ) -> dict[str, Any]:
        return await queries.facts(check_name(tenant) if tenant else tenant, first, last, by)

"""The gateway's routes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from faasmoe import __version__
from faasmoe.api import errors
from faasmoe.api.authentication import TenantMiddleware
from faasmoe.api.disconnect import CLIENT_LEFT, while_connected
from faasmoe.api.generation import EventStream, Generation
from faasmoe.api.http.body_limit import BodyLimit, body_of
from faasmoe.api.http.pace import RefusalPace
from faasmoe.api.http.paths import Paths
from faasmoe.api.http_options import HttpOptions
from faasmoe.api.interface import Endpoint, ReaderRoute
from faasmoe.api.metering.request_meter import RequestMeters
from faasmoe.api.metering.usage import add_own_usage
from faasmoe.api.metrics.metrics import Metrics, add_metrics
from faasmoe.api.parsed_request import BodyReader, Bounds, ParsedRequest, ReaderAnswer
from faasmoe.api.registry import APIS, Registry
from faasmoe.api.response_store import ResponseStore, StoredResponse
from faasmoe.fleet.fleet import Fleet
from faasmoe.tenancy.authentication import Caller
from faasmoe.tenancy.service import TenancyService


@dataclass(frozen=True)
class ServedModel:
    """The one model of a server, with all that a request for it needs."""

    bounds: Bounds  # that requests are checked against
    fleet: Fleet
    reader: BodyReader
    metrics: Metrics
    meters: RequestMeters

    async def respond(self, request: Request, endpoint: Endpoint[Any]) -> Response:
        """Read the body of `request` and generate, whole or as a stream, until the client disconnects."""
        caller: Caller = request.state.caller
        body = endpoint.recalled(await body_of(request), caller.name)
        reading = self.reader.read(endpoint.name, caller.name, body)
        parsed = await while_connected(request.receive, reading)
        if parsed is None:
            return Response(status_code=CLIENT_LEFT)
        return await self._generate(request, endpoint, parsed.typed(endpoint.own))

    async def read(self, request: Request, route: ReaderRoute) -> Response:
        """Have a reader answer the body of `request`."""
        caller: Caller = request.state.caller
        reading = self.reader.read(route.name, caller.name, await body_of(request))
        parsed = await while_connected(request.receive, reading)
        if parsed is None:
            return Response(status_code=CLIENT_LEFT)
        return JSONResponse(parsed.typed(ReaderAnswer).own.fields, headers=_ignored(parsed))

    async def _generate(self, request: Request, endpoint: Endpoint[Any], parsed: ParsedRequest[Any]) -> Response:
        generation = Generation(
            endpoint=endpoint,
            model=self.bounds.model,
            parsed=parsed,
            caller=request.state.caller,
            fleet=self.fleet,
            metrics=self.metrics,
            meters=self.meters,
        )
        if parsed.stream:
            return EventStream(generation, _ignored(parsed))
        whole = await while_connected(request.receive, generation.whole())
        if whole is None:
            return Response(status_code=CLIENT_LEFT)
        return Response(whole, media_type="application/json", headers=_ignored(parsed))


def create_app(
    model: str,
    fleet: Fleet,
    reader: BodyReader,
    metrics: Metrics,
    tenancy: TenancyService,
    apis: Registry = APIS,
    options: HttpOptions | None = None,
) -> FastAPI:
    """Build the gateway's FastAPI application, which serves one model through all `apis`."""
    options = options or HttpOptions()
    app = FastAPI(
        title="FaaSMoE",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        servers=[{"url": options.root_path}] if options.root_path else None,
    )  # the schema needs a key; FastAPI's pages for it would load their scripts from other hosts
    app.add_middleware(BodyLimit)
    app.add_middleware(
        TenantMiddleware,
        authentication=tenancy.authentication,
        limits=tenancy.limits,
        limited=metrics.turned_away,
        apis=apis,
    )
    if options.cors_origins:  # before keys: a preflight has none
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    app.add_middleware(Paths, root=options.root_path)
    app.add_middleware(RefusalPace)  # outermost
    errors.install(app, apis)
    served = ServedModel(options.bounds(model, fleet.about), fleet, reader, metrics, RequestMeters(tenancy))
    app.state.meters = served.meters
    add_metrics(app, metrics)
    started = int(time.time())
    endpoints = [endpoint for api in apis.apis for endpoint in api.endpoints]
    for api in apis.apis:
        api.add_routes(app, served.bounds, started)
    for endpoint in endpoints:
        _add_endpoint(app, served, endpoint)
        if endpoint.store is not None:
            _add_stored(app, endpoint, endpoint.store)
    reader_routes = [route for api in apis.apis for route in api.reader_routes]
    for route in reader_routes:
        _add_reader_route(app, served, route)
    add_own_usage(app, tenancy)
    _describe_bodies(app, [*endpoints, *reader_routes])
    return app


def _add_endpoint(app: FastAPI, served: ServedModel, endpoint: Endpoint[Any]) -> None:
    @app.post(endpoint.path, name=endpoint.name)
    async def generate(request: Request) -> Response:
        return await served.respond(request, endpoint)


def _add_stored(app: FastAPI, endpoint: Endpoint[Any], store: ResponseStore) -> None:
    """Routes for responses that were kept, of the tenant that asks alone."""

    def found(request: Request, response_id: str) -> StoredResponse:
        caller: Caller = request.state.caller
        kept = store.get(caller.name, response_id)
        if kept is None:
            raise HTTPException(404, f"there is no response {response_id[:_LONGEST_ID]!r}, or none any more")
        return kept

    @app.get(f"{endpoint.path}/{{response_id}}", name=f"get_{endpoint.name}")
    async def get(request: Request, response_id: str) -> Response:
        return Response(found(request, response_id).body, media_type="application/json")

    @app.get(f"{endpoint.path}/{{response_id}}/input_items", name=f"items_of_{endpoint.name}")
    async def items(request: Request, response_id: str) -> Response:
        listed = b'{"object":"list","has_more":false,"data":' + found(request, response_id).items + b"}"
        return Response(listed, media_type="application/json")

    @app.delete(f"{endpoint.path}/{{response_id}}", name=f"delete_{endpoint.name}")
    async def delete(request: Request, response_id: str) -> dict[str, Any]:
        found(request, response_id)
        store.drop(request.state.caller.name, response_id)
        return {"id": response_id, "object": "response", "deleted": True}


def _add_reader_route(app: FastAPI, served: ServedModel, route: ReaderRoute) -> None:
    @app.post(route.path, name=route.name)
    async def read(request: Request) -> Response:
        return await served.read(request, route)


def _ignored(parsed: ParsedRequest[Any]) -> dict[str, str]:
    """The header that names fields which no API knows, with `--unknown-fields ignore`."""
    return {"X-Ignored-Fields": ", ".join(parsed.ignored)} if parsed.ignored else {}


_LONGEST_ID = 64  # characters of a response's id that a message repeats
_REFERENCE = "#/components/schemas/{model}"


def _describe_bodies(app: FastAPI, endpoints: Sequence[Endpoint[Any] | ReaderRoute]) -> None:
    """Add the bodies of `endpoints` to the OpenAPI document: readers validate them, so that FastAPI knows none."""
    written = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = written()
            models: list[Any] = [(endpoint.schema, "validation") for endpoint in endpoints]
            _, schemas = models_json_schema(models, ref_template=_REFERENCE)
            document.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
            for endpoint in endpoints:
                schema = {"$ref": _REFERENCE.format(model=endpoint.schema.__name__)}
                content = {"application/json": {"schema": schema}}
                document["paths"][endpoint.path]["post"]["requestBody"] = {"required": True, "content": content}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]

"""The gateway's routes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response

from faasmoe import __version__
from faasmoe.api.accounting import Accounts
from faasmoe.api.asked import Asked, BodyReader, Bounds
from faasmoe.api.authentication import TenantsOnly
from faasmoe.api.generation import EventStream, Generation, Order
from faasmoe.api.http.body_limit import BodyLimit, body_of
from faasmoe.api.http.disconnect import CLIENT_LEFT, while_connected
from faasmoe.api.http.pace import RefusalPace
from faasmoe.api.metrics.metrics import Metrics, add_metrics
from faasmoe.api.openai import errors
from faasmoe.api.openai.described import describe_bodies
from faasmoe.api.openai.responses import CHAT, COMPLETION, Form
from faasmoe.api.usage import add_own_usage
from faasmoe.fleet.fleet import Fleet
from faasmoe.tenancy.authentication import Caller
from faasmoe.tenancy.service import TenancyService


@dataclass(frozen=True)
class Served:
    """The one model of a server, and what answers for it."""

    name: str
    fleet: Fleet
    reader: BodyReader
    metrics: Metrics
    accounts: Accounts
    started: int  # seconds since the epoch

    @property
    def bounds(self) -> Bounds:
        """What requests are checked against."""
        about = self.fleet.about
        return Bounds(self.name, about.vocabulary, about.max_model_len)

    def card(self) -> dict[str, Any]:
        """What `/v1/models` says of it."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.started,
            "owned_by": "faasmoe",
            "max_model_len": self.fleet.about.max_model_len,
        }

    async def answer(self, request: Request, form: Form) -> Response:
        """Do what the body of `request` asks for, whole or as a stream, while the client is there."""
        caller: Caller = request.state.caller
        reading = self.reader.read(form.kind, caller.name, await body_of(request))
        asked = await while_connected(request.receive, reading)
        return Response(status_code=CLIENT_LEFT) if asked is None else await self._generate(request, form, asked)

    async def _generate(self, request: Request, form: Form, asked: Asked) -> Response:
        order = Order(form, self.name, asked, request.state.caller)
        generation = Generation(self.fleet, self.metrics, self.accounts, order)
        if asked.stream:
            return EventStream(generation, asked.include_usage)
        whole = await while_connected(request.receive, generation.whole())
        if whole is None:
            return Response(status_code=CLIENT_LEFT)
        return Response(whole, media_type="application/json")


def create_app(model: str, fleet: Fleet, reader: BodyReader, metrics: Metrics, tenancy: TenancyService) -> FastAPI:
    """The whole HTTP application, serving one model."""
    app = FastAPI(
        title="FaaSMoE", version=__version__, docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json"
    )  # the schema is for those with a key; pages for it would load their scripts from elsewhere
    app.add_middleware(BodyLimit)
    app.add_middleware(
        TenantsOnly, authentication=tenancy.authentication, limits=tenancy.limits, limited=metrics.turned_away
    )
    app.add_middleware(RefusalPace)  # outermost
    errors.install(app)
    served = Served(model, fleet, reader, metrics, Accounts(tenancy), int(time.time()))
    app.state.accounts = served.accounts
    add_metrics(app, metrics)
    _add_models(app, served)
    _add_generation(app, served)
    add_own_usage(app, tenancy)
    describe_bodies(app)
    return app


def _add_models(app: FastAPI, served: Served) -> None:
    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [served.card()]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        served.bounds.check_model(name)
        return served.card()


def _add_generation(app: FastAPI, served: Served) -> None:
    @app.post(COMPLETION.path)
    async def completions(request: Request) -> Response:
        return await served.answer(request, COMPLETION)

    @app.post(CHAT.path)
    async def chat(request: Request) -> Response:
        return await served.answer(request, CHAT)

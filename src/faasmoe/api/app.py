"""The gateway's routes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from faasmoe import __version__
from faasmoe.api import errors
from faasmoe.api.account import Accounts
from faasmoe.api.authentication import TenantsOnly
from faasmoe.api.body_limit import BodyLimit
from faasmoe.api.forms import CHAT, COMPLETION, Form
from faasmoe.api.generation import EventStream, Generation, Order
from faasmoe.api.metrics import Metrics
from faasmoe.api.presence import CLIENT_LEFT, while_connected
from faasmoe.api.schema import MAX_CHOICES, ChatBody, CompletionBody, GenerationBody
from faasmoe.api.texts import Texts
from faasmoe.api.usage import add_own_usage
from faasmoe.errors import RequestError
from faasmoe.orchestrator.fleet import Fleet
from faasmoe.tenancy.authentication import Caller
from faasmoe.tenancy.office import Office


@dataclass(frozen=True)
class Served:
    """The one model of a server, and what answers for it."""

    name: str
    fleet: Fleet
    texts: Texts
    metrics: Metrics
    accounts: Accounts
    started: int  # seconds since the epoch

    def card(self) -> dict[str, Any]:
        """What `/v1/models` says of it."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.started,
            "owned_by": "faasmoe",
            "max_model_len": self.fleet.about.max_model_len,
        }

    def check(self, asked: str) -> None:
        """Raises `RequestError` if a client asks for another model."""
        if asked != self.name:
            raise RequestError(
                f"the model {asked!r} does not exist; this server has {self.name!r}",
                param="model",
                code="model_not_found",
            )

    async def answer(
        self,
        request: Request,
        form: Form,
        body: GenerationBody,
        prompts: Sequence[Sequence[int]],
        limit: int | None,
    ) -> Response:
        """Continue `prompts`, whole or as a stream, while the client is there.

        By up to `limit` tokens each, or until the context is full.
        """
        answers = len(prompts) * body.choices
        if answers > MAX_CHOICES:
            raise RequestError(
                f"{len(prompts)} prompts with n={body.choices}: one request gets at most {MAX_CHOICES} answers",
                param="prompt" if len(prompts) > MAX_CHOICES else "n",
            )
        most = max(1, self.fleet.about.max_model_len - min(map(len, prompts))) if limit is None else limit
        params = body.sampling(most)
        self.texts.check([token for token, _ in params.logit_bias], "logit_bias")
        caller: Caller = request.state.caller
        order = Order(
            form, self.name, prompts, params, body.choices, limit is not None, caller, body.priority, body.tier
        )
        generation = Generation(self.fleet, self.metrics, self.accounts, order)
        if body.stream:
            await generation.start()
            return EventStream(generation, body.include_usage)
        whole = await while_connected(request.receive, generation.whole())
        return Response(status_code=CLIENT_LEFT) if whole is None else JSONResponse(whole)


def create_app(model: str, fleet: Fleet, texts: Texts, metrics: Metrics, office: Office) -> FastAPI:
    """The whole HTTP application, serving one model."""
    app = FastAPI(
        title="FaaSMoE", version=__version__, docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json"
    )  # the schema is for those with a key; pages for it would load their scripts from elsewhere
    app.add_middleware(BodyLimit)
    app.add_middleware(TenantsOnly, authentication=office.authentication, limits=office.limits)
    errors.install(app)
    served = Served(model, fleet, texts, metrics, Accounts(office), int(time.time()))
    app.state.accounts = served.accounts
    _add_metrics(app, metrics)
    _add_models(app, served)
    _add_generation(app, served)
    add_own_usage(app, office)
    return app


def _add_metrics(app: FastAPI, metrics: Metrics) -> None:
    @app.get("/metrics")
    async def metrics_page() -> Response:
        return Response(await metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_models(app: FastAPI, served: Served) -> None:
    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [served.card()]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        served.check(name)
        return served.card()


def _add_generation(app: FastAPI, served: Served) -> None:
    @app.post("/v1/completions")
    async def completions(body: CompletionBody, request: Request) -> Response:
        served.check(body.model)
        prompts = served.texts.prompts(body.prompt)
        limit = 16 if body.max_tokens is None else body.max_tokens
        return await served.answer(request, COMPLETION, body, prompts, limit)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatBody, request: Request) -> Response:
        served.check(body.model)
        prompt = served.texts.conversation(body.messages)
        return await served.answer(request, CHAT, body, [prompt], body.limit)

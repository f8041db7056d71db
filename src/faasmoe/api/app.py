"""The gateway's routes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse, StreamingResponse

from faasmoe import __version__
from faasmoe.api import errors
from faasmoe.api.body_limit import BodyLimit
from faasmoe.api.generation import Form, Generation
from faasmoe.api.metrics import Metrics
from faasmoe.api.schema import ChatBody, CompletionBody, GenerationBody
from faasmoe.api.texts import Texts
from faasmoe.errors import RequestError
from faasmoe.orchestrator.client import OrchestratorClient

MAX_PROMPTS = 64  # in one completion request

COMPLETION = Form(
    "cmpl",
    "text_completion",
    "text_completion",
    lambda i, text, reason: {"index": i, "text": text, "logprobs": None, "finish_reason": reason},
    lambda i, text, reason, _: {"index": i, "text": text, "logprobs": None, "finish_reason": reason},
)
CHAT = Form(
    "chatcmpl",
    "chat.completion",
    "chat.completion.chunk",
    lambda i, text, reason: {
        "index": i,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": reason,
    },
    lambda i, text, reason, first: {
        "index": i,
        "delta": {"role": "assistant", "content": text} if first else {"content": text},
        "logprobs": None,
        "finish_reason": reason,
    },
)


@dataclass(frozen=True)
class Served:
    """The one model of a server, and what answers for it."""

    name: str
    client: OrchestratorClient
    texts: Texts
    metrics: Metrics
    started: int  # seconds since the epoch

    def card(self) -> dict[str, Any]:
        """What `/v1/models` says of it."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.started,
            "owned_by": "faasmoe",
            "max_model_len": self.client.max_model_len,
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
        self, form: Form, body: GenerationBody, prompts: Sequence[Sequence[int]], limit: int
    ) -> Response:
        """Continue `prompts` by up to `limit` tokens each, whole or as a stream."""
        params = body.sampling(limit)
        generation = Generation(self.client, self.metrics, form, self.name, prompts, params)
        await generation.start()
        if not body.stream:
            return JSONResponse(await generation.whole())
        return StreamingResponse(generation.events(body.include_usage), media_type="text/event-stream")


def create_app(model: str, client: OrchestratorClient, texts: Texts, metrics: Metrics) -> FastAPI:
    """The whole HTTP application, serving one model."""
    app = FastAPI(title="FaaSMoE", version=__version__)
    app.add_middleware(BodyLimit)
    errors.install(app)
    served = Served(model, client, texts, metrics, int(time.time()))
    _add_state(app, served)
    _add_models(app, served)
    _add_generation(app, served)
    return app


def _add_state(app: FastAPI, served: Served) -> None:
    @app.get("/health")
    async def health() -> JSONResponse:
        state = served.client.state
        return JSONResponse({"status": state}, 200 if state == "ok" else 503)

    @app.get("/metrics")
    async def metrics_page() -> Response:
        return Response(await served.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


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
    async def completions(body: CompletionBody) -> Response:
        served.check(body.model)
        prompts = served.texts.prompts(body.prompt)
        if len(prompts) > MAX_PROMPTS:
            raise RequestError(f"{len(prompts)} prompts: at most {MAX_PROMPTS} in one request", param="prompt")
        limit = 16 if body.max_tokens is None else body.max_tokens
        return await served.answer(COMPLETION, body, prompts, limit)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatBody) -> Response:
        served.check(body.model)
        prompt = served.texts.conversation(body.messages)
        asked = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        limit = max(1, served.client.max_model_len - len(prompt)) if asked is None else asked
        return await served.answer(CHAT, body, [prompt], limit)

"""The gateway's routes."""

from __future__ import annotations

import time
from collections.abc import Sequence
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


def create_app(model: str, client: OrchestratorClient, texts: Texts, metrics: Metrics) -> FastAPI:
    """The whole HTTP application, serving one model."""
    app = FastAPI(title="FaaSMoE", version=__version__)
    app.add_middleware(BodyLimit)
    errors.install(app)
    started = int(time.time())

    def card() -> dict[str, Any]:
        length = client.max_model_len
        return {
            "id": model,
            "object": "model",
            "created": started,
            "owned_by": "faasmoe",
            "max_model_len": length,
        }

    def check_model(asked: str) -> None:
        if asked != model:
            raise RequestError(
                f"the model {asked!r} does not exist; this server has {model!r}",
                param="model",
                code="model_not_found",
            )

    async def answer(form: Form, body: GenerationBody, prompts: Sequence[Sequence[int]], limit: int) -> Response:
        generation = Generation(client, metrics, form, model, prompts, body.sampling(limit))
        if not body.stream:
            return JSONResponse(await generation.whole())
        return StreamingResponse(generation.events(body.include_usage), media_type="text/event-stream")

    @app.get("/health")
    async def health() -> JSONResponse:
        alive = client.alive
        return JSONResponse({"status": "ok" if alive else "stopped"}, 200 if alive else 503)

    @app.get("/metrics")
    def metrics_page() -> Response:
        return Response(metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card()]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        check_model(name)
        return card()

    @app.post("/v1/completions")
    async def completions(body: CompletionBody) -> Response:
        check_model(body.model)
        prompts = texts.prompts(body.prompt)
        if len(prompts) > MAX_PROMPTS:
            raise RequestError(f"{len(prompts)} prompts: at most {MAX_PROMPTS} in one request", param="prompt")
        limit = 16 if body.max_tokens is None else body.max_tokens
        return await answer(COMPLETION, body, prompts, limit)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatBody) -> Response:
        check_model(body.model)
        prompt = texts.conversation(body.messages)
        asked = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        limit = max(1, client.max_model_len - len(prompt)) if asked is None else asked
        return await answer(CHAT, body, [prompt], limit)

    return app

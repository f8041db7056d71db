"""OpenAI's API: its routes, and its headers for keys and rate limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from faasmoe.api.interface import Endpoint, ErrorInfo, RateLimit, ReaderRoute, Routes
from faasmoe.api.openai.endpoints import CHAT, COMPLETION
from faasmoe.api.openai.errors import error_body, error_headers
from faasmoe.api.openai.tokens import DETOKENIZE, TOKENIZE
from faasmoe.api.parsed_request import Bounds
from faasmoe.errors import RequestError


class OpenAI:
    """Bearer keys, `x-ratelimit-*` headers, completions, chat completions and models."""

    paths: Sequence[str] = ("/v1/", "/tokenize", "/detokenize")
    endpoints: Sequence[Endpoint[Any]] = (COMPLETION, CHAT)
    reader_routes: Sequence[ReaderRoute] = (TOKENIZE, DETOKENIZE)
    key_form: str = "Authorization: Bearer KEY"

    def add_routes(self, routes: Routes, bounds: Bounds, created: int) -> None:
        """Add `/v1/models`, a route for each model, and a refusal of embeddings."""
        about = {
            "object": "model",
            "created": created,
            "owned_by": "faasmoe",
            "root": bounds.model,
            "max_model_len": bounds.max_model_len,
            "default_sampling_params": bounds.defaults,
        }
        cards = {name: {"id": name, **about} for name in (bounds.model, *bounds.aliases)}

        @routes.get("/v1/models")
        async def models() -> dict[str, Any]:
            return {"object": "list", "data": list(cards.values())}

        @routes.get("/v1/models/{name:path}")
        async def one_model(name: str) -> dict[str, Any]:
            bounds.check_model(name)
            return cards[name]

        @routes.post("/v1/embeddings")
        async def embeddings() -> None:
            raise RequestError(f"{bounds.model} generates text and makes no embeddings", param="model")

    def key(self, headers: Mapping[str, str]) -> str | None:
        """The bearer token."""
        kind, _, token = headers.get("authorization", "").partition(" ")
        return token.strip() if kind.lower() == "bearer" and token.strip() else None

    def rate_headers(self, limits: Sequence[RateLimit]) -> Mapping[str, str]:
        """`x-ratelimit-limit-*`, `x-ratelimit-remaining-*` and `x-ratelimit-reset-*`."""
        found = {}
        for each in limits:
            found[f"x-ratelimit-limit-{each.kind}"] = str(each.limit)
            found[f"x-ratelimit-remaining-{each.kind}"] = str(each.remaining)
            found[f"x-ratelimit-reset-{each.kind}"] = duration(each.reset)
        return found

    def error_body(self, error: ErrorInfo) -> Mapping[str, Any]:
        """See `errors.error_body`."""
        return error_body(error)

    def error_headers(self, error: ErrorInfo) -> Mapping[str, str]:
        """See `errors.error_headers`."""
        return error_headers(error)


def duration(seconds: float) -> str:
    """Seconds as OpenAI writes them: 250ms, 8s, 1m0s. Rounded up."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


OPENAI = OpenAI()

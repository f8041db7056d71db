"""Anthropic's API: its routes, and its headers for keys and rate limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from faasmoe.api.anthropic.endpoints import Messages, TokenCount
from faasmoe.api.anthropic.errors import error_body
from faasmoe.api.chat.reply import ReplyFormat
from faasmoe.api.interface import Endpoint, ErrorInfo, RateLimit, ReaderRoute, Routes
from faasmoe.api.parsed_request import Bounds


class Anthropic:
    """Keys in `x-api-key` or as bearers, `anthropic-ratelimit-*` headers, messages and the count of their tokens."""

    paths: Sequence[str] = ("/v1/messages",)
    endpoints: Sequence[Endpoint[ReplyFormat]] = (Messages(),)
    reader_routes: Sequence[ReaderRoute] = (TokenCount(),)
    key_form: str = "x-api-key: KEY"

    def add_routes(self, routes: Routes, _bounds: Bounds, _created: int) -> None:
        """Add `/`, which Claude Code asks for by HEAD before it sends anything."""

        @routes.get("/")
        async def root() -> dict[str, Any]:
            return {"server": "FaaSMoE"}

    def key(self, headers: Mapping[str, str]) -> str | None:
        """The key in `x-api-key`, or the bearer token."""
        own = headers.get("x-api-key", "").strip()
        kind, _, token = headers.get("authorization", "").partition(" ")
        return own or (token.strip() if kind.lower() == "bearer" else "") or None

    def rate_headers(self, limits: Sequence[RateLimit]) -> Mapping[str, str]:
        """`anthropic-ratelimit-*-limit`, `-remaining` and `-reset`."""
        found = {}
        for each in limits:
            reset = datetime.now(UTC) + timedelta(seconds=each.reset)
            found[f"anthropic-ratelimit-{each.kind}-limit"] = str(each.limit)
            found[f"anthropic-ratelimit-{each.kind}-remaining"] = str(each.remaining)
            found[f"anthropic-ratelimit-{each.kind}-reset"] = reset.isoformat(timespec="seconds")
        return found

    def error_body(self, error: ErrorInfo) -> Mapping[str, Any]:
        """See `errors.error_body`."""
        return error_body(error)

    def error_headers(self, error: ErrorInfo) -> Mapping[str, str]:
        """Anthropic's clients retry by themselves after 429, unless a header forbids it."""
        return {} if error.retry else {"x-should-retry": "false"}


ANTHROPIC = Anthropic()

"""A made-up API beside OpenAI's, for tests of what the gateway does for any API."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from faasmoe.api.bodies.prompts import PromptReader
from faasmoe.api.interface import ErrorInfo, Head, RateLimit, Routes, Usage, WithoutStore
from faasmoe.api.openai.api import OPENAI
from faasmoe.api.parsed_request import Bounds, ParsedRequest
from faasmoe.api.registry import Registry
from faasmoe.protocol.request import Piece, SamplingParams
from faasmoe.readers.messages import Done, pack, read_answer
from faasmoe.readers.parser import RequestParser
from tests.reading import Letters


class Ask(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    say: str
    live: bool = False
    voice: str = "low"


@dataclass(frozen=True)
class Voice:
    """The API's own fields."""

    name: str


class Lines:
    """Both the stream and the whole response of `Say`."""

    def __init__(self, head: Head[Voice]) -> None:
        self._head = head
        self._texts: list[str] = []

    def begin(self) -> bytes:
        return f"event: begin {self._head.prompt_tokens} {self._head.parsed.own.name}\n\n".encode()

    def piece(self, index: int, piece: Piece) -> bytes:
        self._texts.append(piece.text)
        return f"event: {index} {piece.text}\n\n".encode()

    def keep_alive(self, awaited: str) -> bytes:
        return b"event: ping\n\n"

    def end(self, usage: Usage) -> bytes:
        return f"event: end {usage.completion_tokens}\n\n".encode()

    def error(self, error: ErrorInfo) -> bytes:
        return f"event: failed {error.code}\n\n".encode()

    def body(self, usage: Usage) -> bytes:
        said = {"said": "".join(self._texts), "tokens": usage.completion_tokens}
        return json.dumps({**said, "voice": self._head.parsed.own.name}).encode()


class Say(WithoutStore):
    name = "say"
    path = "/v1/say"
    id_prefix = "say"
    schema = Ask
    own = Voice

    def read(self, body: Ask, prompts: PromptReader, bounds: Bounds) -> ParsedRequest[Voice]:
        ids = tuple(map(tuple, prompts.prompts(body.say)))
        return ParsedRequest(prompts=ids, params=SamplingParams(20), stream=body.live, own=Voice(body.voice))

    def stream(self, head: Head[Voice]) -> Lines:
        return Lines(head)

    def whole(self, head: Head[Voice]) -> Lines:
        return Lines(head)


class SayAPI:
    """Its path lies below one of OpenAI's."""

    paths = ("/v1/say",)
    endpoints = (Say(),)
    reader_routes = ()
    key_form = "x-api-key: KEY"

    def add_routes(self, routes: Routes, bounds: Bounds, created: int) -> None:
        @routes.get("/v1/say/hello")
        async def hello() -> dict[str, Any]:
            return {"hello": bounds.model}

    def key(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("x-api-key")

    def rate_headers(self, limits: Sequence[RateLimit]) -> Mapping[str, str]:
        return {f"say-left-{each.kind}": str(each.remaining) for each in limits}

    def error_body(self, error: ErrorInfo) -> Mapping[str, Any]:
        return {"wrong": error.message, "field": error.param}

    def error_headers(self, error: ErrorInfo) -> Mapping[str, str]:
        return {"say-again": str(error.retry).lower()}


BOTH = Registry(OPENAI, SayAPI())


class BothReader:
    """Reads bodies of both APIs in this process, and passes on what a reader's process would send."""

    def __init__(self, bounds: Bounds) -> None:
        self._parser = RequestParser(Letters(), bounds, BOTH)

    async def read(self, kind: str, tenant: str, body: bytes) -> ParsedRequest[Any]:
        answer = read_answer(pack(Done(self._parser.parse(kind, body), last=False)))
        assert isinstance(answer, Done)
        return answer.asked

"""A made-up API beside OpenAI's: an API is one folder, and the core knows no API's words."""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ConfigDict

import faasmoe.api
from faasmoe.api import generation
from faasmoe.api.app import create_app
from faasmoe.api.bodies.prompts import PromptReader
from faasmoe.api.interface import Failure, Head, RateLimit, Routes, Usage
from faasmoe.api.metrics.metrics import Metrics
from faasmoe.api.openai.api import OPENAI
from faasmoe.api.parsed_request import Bounds, ParsedRequest
from faasmoe.api.registry import Registry
from faasmoe.errors import EngineStopped
from faasmoe.platforms.base import PoolStatus
from faasmoe.protocol.request import Piece, SamplingParams
from faasmoe.readers.messages import Done, pack, read_answer
from faasmoe.readers.parser import RequestParser
from faasmoe.tenancy.tenants import Tenant
from tests.reading import Letters
from tests.tenancies import PlayedTenancy
from tests.unit.api.test_app import ANSWER, Orchestrator, Slow

CORE = Path(faasmoe.api.__file__).parent
OPENAIS_WORDS = (
    'choices"',
    "[done]",
    "data:",
    "chunk",
    "include_usage",
    "service_tier",
    "x-ratelimit",
    "bearer",
    "/v1/chat",
    "/v1/completions",
)


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

    def error(self, failure: Failure) -> bytes:
        return f"event: failed {failure.code}\n\n".encode()

    def body(self, usage: Usage) -> bytes:
        said = {"said": "".join(self._texts), "tokens": usage.completion_tokens}
        return json.dumps({**said, "voice": self._head.parsed.own.name}).encode()


class Say:
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

    def add_routes(self, routes: Routes, bounds: Bounds, created: int) -> None:
        @routes.get("/v1/say/hello")
        async def hello() -> dict[str, Any]:
            return {"hello": bounds.model}

    def key(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("x-api-key")

    def rate_headers(self, limits: Sequence[RateLimit]) -> Mapping[str, str]:
        return {f"say-left-{each.kind}": str(each.remaining) for each in limits}

    def error_body(self, failure: Failure) -> Mapping[str, Any]:
        return {"wrong": failure.message, "field": failure.param}

    def error_headers(self, failure: Failure) -> Mapping[str, str]:
        return {"say-again": str(failure.retry).lower()}


BOTH = Registry(OPENAI, SayAPI())
ACME = Tenant("acme", rpm=2)
KEY = {"x-api-key": "fm-acme-secret"}


class BothReader:
    """Reads bodies of both APIs in this process, and passes on what a reader's process would send."""

    def __init__(self, bounds: Bounds) -> None:
        self._parser = RequestParser(Letters(), bounds, BOTH)

    async def read(self, kind: str, tenant: str, body: bytes) -> ParsedRequest[Any]:
        answer = read_answer(pack(Done(self._parser.parse(kind, body), last=False)))
        assert isinstance(answer, Done)
        return answer.asked


def ask(
    orchestrator: Orchestrator, *bodies: dict[str, Any], headers: Mapping[str, str] = KEY, path: str = "/v1/say"
) -> list[httpx.Response]:
    tenancy = PlayedTenancy(ACME, anonymous=False)
    metrics = Metrics(orchestrator, lambda: PoolStatus(functions=[], memory_used=0), tenancy)  # type: ignore[arg-type]
    app = create_app("m", orchestrator, BothReader(Bounds("m", 256, 100)), metrics, tenancy, BOTH)  # type: ignore[arg-type]

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            return [await client.post(path, json={"model": "m", **body}) for body in bodies]

    return asyncio.run(run())


def test_it_gives_whole_responses_with_its_own_limits_told() -> None:
    (got,) = ask(Orchestrator(ANSWER), {"say": "abc", "voice": "high"})
    assert (got.status_code, got.json()) == (200, {"said": "夜 🎈", "tokens": 5, "voice": "high"})
    assert got.headers["say-left-requests"] == "1"
    assert not any(name.startswith("x-ratelimit") for name in got.headers)


def test_it_streams_its_own_events() -> None:
    (got,) = ask(Orchestrator(ANSWER), {"say": "abc", "live": True})
    assert got.headers["content-type"].startswith("text/event-stream")
    assert got.text.split("\n\n") == ["event: begin 3 low", "event: 0 夜", "event: 0  🎈", "event: end 5", ""]


def test_its_clients_wait_with_its_own_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "INTERVAL", 0.01)
    (got,) = ask(Slow(2, ANSWER), {"say": "abc", "live": True})
    events = got.text.split("\n\n")
    assert events[:2] == ["event: ping"] * 2
    rest = [event for event in events if event != "event: ping"]
    assert rest == ["event: begin 3 low", "event: 0 夜", "event: 0  🎈", "event: end 5", ""]


def test_a_stream_that_fails_ends_with_its_own_event() -> None:
    (got,) = ask(Orchestrator([Piece("a", 1)], EngineStopped("gone")), {"say": "abc", "live": True})
    assert got.text.split("\n\n")[-2] == "event: failed engine_stopped"


def test_errors_have_its_shape() -> None:
    wrong, other, limited = ask(Orchestrator(ANSWER), {"say": 5}, {"say": "a", "model": "x"}, {"say": "a"})
    assert (wrong.status_code, wrong.json()["field"], wrong.headers["say-again"]) == (400, "say", "true")
    assert (other.status_code, other.json()["field"]) == (404, "model")
    assert (limited.status_code, set(limited.json())) == (429, {"wrong", "field"})
    assert int(limited.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer fm-acme-secret"}, {"x-api-key": "fm-acme-wrong"}]
)
def test_keys_come_in_its_own_header_alone(headers: dict[str, str]) -> None:
    (got,) = ask(Orchestrator(ANSWER), {"say": "a"}, headers=headers)
    assert (got.status_code, set(got.json())) == (401, {"wrong", "field"})
    assert "www-authenticate" not in got.headers


def test_unknown_paths_below_it_are_its_own_and_others_are_not() -> None:
    (own,) = ask(Orchestrator(), {}, path="/v1/say/nothing")
    (other,) = ask(Orchestrator(), {}, path="/v1/saying", headers={"Authorization": "Bearer fm-acme-secret"})
    (neither,) = ask(Orchestrator(), {}, path="/nothing")
    assert [got.status_code for got in (own, other, neither)] == [404, 404, 404]
    assert ["wrong" in got.json() for got in (own, other, neither)] == [True, False, False]


def test_openais_api_goes_on_beside_it() -> None:
    bearer = {"Authorization": "Bearer fm-acme-secret"}
    (got,) = ask(Orchestrator(ANSWER), {"prompt": "a"}, path="/v1/completions", headers=bearer)
    assert got.json()["object"] == "text_completion"
    assert got.headers["x-ratelimit-remaining-requests"] == "1"


def test_the_core_imports_no_api_but_to_register_it() -> None:
    found = {
        (file.name, node.module)
        for folder in (CORE, CORE / "http", CORE / "bodies", CORE / "metrics")
        for file in folder.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("faasmoe.api.openai")
    }
    assert found == {("registry.py", "faasmoe.api.openai.api")}


def test_the_core_has_no_words_of_openais_api() -> None:
    found = [
        (file.name, word)
        for file in CORE.glob("*.py")
        for word in OPENAIS_WORDS
        if word in file.read_text().lower()
    ]
    assert found == []

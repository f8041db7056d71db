"""A made-up API beside OpenAI's: an API is one folder, and the core knows no API's words."""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

import faasmoe.api
from faasmoe.api import generation
from faasmoe.api.app import create_app
from faasmoe.api.http.body_limit import MAX_BODY
from faasmoe.api.http.entrance import Entrance
from faasmoe.api.http.health import Health
from faasmoe.api.metrics.metrics import Metrics
from faasmoe.api.parsed_request import Bounds
from faasmoe.errors import EngineBusy, EngineStopped
from faasmoe.platforms.base import PoolStatus
from faasmoe.protocol.request import Piece
from faasmoe.tenancy.tenants import Tenant
from tests.second_api import BOTH, BothReader
from tests.tenancies import PlayedTenancy
from tests.unit.api.apps import ANSWER, Orchestrator, Slow

CORE = Path(faasmoe.api.__file__).parent
FOLDERS = (CORE, *(CORE / name for name in ("bodies", "chat", "http", "metering", "metrics")))
OPENAIS_WORDS = (
    'choices"',
    "[done]",
    '"data:',
    "chunk",
    "include_usage",
    "service_tier",
    "x-ratelimit",
    "rate_limit_error",
    "bearer",
    "/v1/chat",
    "/v1/completions",
)

ACME = Tenant("acme", rpm=2)
KEY = {"x-api-key": "fm-acme-secret"}
SHAPE = {"wrong", "field"}  # of its errors


def app_of_both(orchestrator: Orchestrator, tenancy: PlayedTenancy) -> Any:
    metrics = Metrics(orchestrator, lambda: PoolStatus(functions=[], memory_used=0), tenancy)  # type: ignore[arg-type]
    return create_app("m", orchestrator, BothReader(Bounds("m", 256, 100)), metrics, tenancy, BOTH)  # type: ignore[arg-type]


def send(app: Any, *requests: httpx.Request) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport) as client:
            return [await client.send(request) for request in requests]

    return asyncio.run(run())


def request(
    path: str = "/v1/say", method: str = "POST", headers: Mapping[str, str] = KEY, **more: Any
) -> httpx.Request:
    if method == "POST" and not more:
        more = {"json": {"model": "m", "say": "a"}}
    return httpx.Request(method, f"http://test{path}", headers=headers, **more)


def ask(
    orchestrator: Orchestrator, *bodies: dict[str, Any], headers: Mapping[str, str] = KEY, path: str = "/v1/say"
) -> list[httpx.Response]:
    requests = [request(path, headers=headers, json={"model": "m", **body}) for body in bodies]
    return send(app_of_both(orchestrator, PlayedTenancy(ACME, anonymous=False)), *requests)


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


@pytest.mark.parametrize(
    ("status", "sent"),
    [
        (400, request(content=b"{", headers={**KEY, "content-type": "application/json"})),
        (400, request(content=b"{}", headers={**KEY, "content-type": "text/plain"})),
        (400, request(json={"model": "m", "say": 5})),
        (401, request(headers={})),
        (401, request(headers={"x-api-key": "fm-acme-wrong"})),
        (401, request(headers={"Authorization": "Bearer fm-acme-secret"})),
        (401, request("/v1/say/hello", "GET", headers={})),
        (404, request(json={"model": "x", "say": "a"})),
        (404, request("/v1/say/nothing", "GET")),
        (405, request(method="GET")),
        (413, request(content=b" " * (MAX_BODY + 1), headers={**KEY, "content-type": "application/json"})),
    ],
    ids=lambda each: f"{each.method} {each.url.path}" if isinstance(each, httpx.Request) else str(each),
)
def test_errors_have_its_shape(status: int, sent: httpx.Request) -> None:
    (got,) = send(app_of_both(Orchestrator(ANSWER), PlayedTenancy(Tenant("acme"), anonymous=False)), sent)
    assert (got.status_code, set(got.json()), got.headers["say-again"]) == (status, SHAPE, "true")
    assert "www-authenticate" not in got.headers
    assert ("allow" in got.headers) == (status == 405)


def test_a_missing_key_is_asked_for_in_its_own_header() -> None:
    got, other = ask(Orchestrator(), {}, headers={}) + ask(Orchestrator(), {}, headers={}, path="/v1/completions")
    assert got.json()["wrong"] == "an API key is needed: send it as 'x-api-key: KEY'"
    assert other.json()["error"]["message"].endswith("send it as 'Authorization: Bearer KEY'")


def test_a_wrong_host_is_refused_in_its_shape() -> None:
    tenancy = PlayedTenancy(local=True)
    (got,) = send(app_of_both(Orchestrator(ANSWER), tenancy), request(headers={"host": "evil.example"}))
    assert (got.status_code, set(got.json())) == (403, SHAPE)


def test_limits_are_told_in_its_shape_and_headers() -> None:
    *_, limited = ask(Orchestrator(ANSWER), {"say": "a"}, {"say": "a"}, {"say": "a"})
    assert (limited.status_code, set(limited.json())) == (429, SHAPE)
    assert (limited.headers["say-left-requests"], limited.headers["say-again"]) == ("0", "true")
    assert int(limited.headers["retry-after"]) >= 1


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(
    ("error", "status"), [(EngineBusy("full"), 429), (LookupError("defect"), 500), (EngineStopped("gone"), 503)]
)
def test_refusals_of_the_orchestrator_have_its_shape(error: Exception, status: int, live: bool) -> None:
    (got,) = ask(Orchestrator(refusal=error), {"say": "a", "live": live})
    assert (got.status_code, set(got.json())) == (status, SHAPE)
    assert ("retry-after" in got.headers) == (status != 500)


def test_a_server_that_is_not_ready_refuses_in_its_shape() -> None:
    (got, other) = send(Entrance(Health(), BOTH), request(), request("/v1/completions"))
    assert (got.status_code, set(got.json()), got.headers["retry-after"]) == (503, SHAPE, "5")
    assert set(other.json()) == {"error"}


@pytest.mark.parametrize("live", [True, False])
def test_a_client_that_leaves_ends_its_generation(live: bool) -> None:
    orchestrator = Orchestrator([Piece("a", 1)])
    body = json.dumps({"model": "m", "say": "a", "live": live}).encode()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await orchestrator.submitted.wait()
        return {"type": "http.disconnect"}

    async def ignore(_: Any) -> None:
        pass

    headers = [(b"content-type", b"application/json"), (b"x-api-key", b"fm-acme-secret")]
    scope = {"type": "http", "method": "POST", "path": "/v1/say", "headers": headers, "query_string": b""}
    app = app_of_both(orchestrator, PlayedTenancy(ACME, anonymous=False))
    asyncio.run(asyncio.wait_for(app(scope, receive, ignore), 30))
    assert [stream.closed for stream in orchestrator.streams] == [True]


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


def imports_of(folder: Path) -> set[tuple[str, str]]:
    """Files of a folder, and the modules that they import from."""
    return {
        (file.name, node.module or "")
        for file in folder.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
    }


def test_the_core_imports_no_api_but_to_register_it() -> None:
    imports = [each for folder in FOLDERS for each in imports_of(folder)]
    found = {each for each in imports if each[1].startswith("faasmoe.api.openai")}
    assert found == {("registry.py", "faasmoe.api.openai.api")}


def test_an_api_imports_its_interface_alone() -> None:
    core = ("bodies", "chat", "interface", "openai", "parsed_request")
    allowed = tuple(f"faasmoe.api.{name}" for name in core)
    found = {module for _, module in imports_of(CORE / "openai") if module.startswith("faasmoe.api")}
    assert {module for module in found if not module.startswith(allowed)} == set()


def test_the_core_has_no_words_of_openais_api() -> None:
    found = [
        (file.name, word)
        for folder in FOLDERS
        for file in folder.glob("*.py")
        for word in OPENAIS_WORDS
        if word in file.read_text().lower()
    ]
    assert found == []

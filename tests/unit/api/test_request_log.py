from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from faasmoe.api import errors
from faasmoe.api.registry import APIS, Registry
from faasmoe.api.request_log import RequestLog
from faasmoe.errors import EngineStopped, LimitExceeded, RequestError
from tests.second_api import BOTH

SECRET = "SECRET"
KEY = f"fm-abcdefghij-{SECRET}"


def application(apis: Registry = APIS) -> Any:
    app = FastAPI()
    errors.install(app)

    @app.get("/fine")
    async def fine() -> str:
        return "fine"

    @app.get("/items/{name}")
    async def item(name: str) -> None:
        raise RequestError(f"{name} is wrong", param=name, code="context_length_exceeded")

    @app.get("/limited")
    async def limited() -> None:
        raise LimitExceeded("no", code="rate_limit_exceeded", limit="tokens", retry_after=1)

    @app.get("/broken")
    async def broken() -> None:
        raise LookupError(SECRET)

    @app.get("/number")
    async def number(value: int) -> int:
        return value

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def events() -> Any:
            yield "begun"
            yield str(errors.describe(EngineStopped("lost")))

        return StreamingResponse(events())

    return RequestLog(app, apis)


def get(
    path: str, caplog: pytest.LogCaptureFixture, apis: Registry = APIS, **headers: str
) -> tuple[httpx.Response, list[logging.LogRecord]]:
    caplog.set_level(logging.INFO, "faasmoe")

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(application(apis), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path, headers=headers or {"Authorization": f"Bearer {KEY}"})

    answer = asyncio.run(run())
    return answer, [r for r in caplog.records if r.name == "faasmoe.api.request_log"]


@pytest.mark.parametrize(
    ("path", "status", "reason", "route", "level"),
    [
        (f"/items/{SECRET}", 400, "context_length_exceeded", "/items/{name}", logging.INFO),
        (f"/{SECRET}", 404, "invalid_request_error", "-", logging.INFO),
        ("/limited", 429, "rate_limit_exceeded", "/limited", logging.INFO),
        (f"/number?value={SECRET}", 400, "invalid_request_error", "/number", logging.INFO),
        ("/broken", 500, "server_error", "/broken", logging.WARNING),
        ("/stream", 200, "engine_stopped", "/stream", logging.WARNING),
    ],
)
def test_what_failed_or_was_refused_leaves_one_line_without_what_was_sent(
    path: str, status: int, reason: str, route: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    answer, (line,) = get(path, caplog)
    said = vars(line)
    assert (answer.status_code, said["status"]) == (status, status)
    assert (said["reason"], said["route"], said["method"], line.levelno) == (reason, route, "GET", level)
    assert (said["key"], said["client"]) == ("fm-abcdefghij", "127.0.0.1")
    assert said["request"] == answer.headers["x-request-id"]
    assert said["seconds"] >= 0
    assert SECRET not in str(said)


def test_keys_are_found_where_the_paths_api_has_them(caplog: pytest.LogCaptureFixture) -> None:
    _, (line,) = get("/v1/say/nothing", caplog, BOTH, **{"x-api-key": KEY})
    assert vars(line)["key"] == "fm-abcdefghij"


def test_what_went_well_leaves_none(caplog: pytest.LogCaptureFixture) -> None:
    answer, lines = get("/fine", caplog)
    assert answer.headers["x-request-id"]
    assert not lines


@pytest.mark.parametrize("given", ["a", "req_0-9.A:z", "0" * 128])
def test_a_clients_id_is_taken_and_echoed(given: str, caplog: pytest.LogCaptureFixture) -> None:
    answer, (line,) = get("/limited", caplog, **{"X-Request-Id": given})
    assert answer.headers.get_list("x-request-id") == [given]
    assert vars(line)["request"] == given


@pytest.mark.parametrize("given", ["", "a b", "a\tb", "a=b", '"a"', "0" * 129, "x:fm-0123456789-secret"])
def test_an_id_of_another_form_is_replaced(given: str, caplog: pytest.LogCaptureFixture) -> None:
    answer, (line,) = get("/limited", caplog, **{"X-Request-Id": given})
    assert answer.headers["x-request-id"].startswith("req-")
    assert vars(line)["request"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("given", [["a", "b"], ["a", "a"], ["\u00e9"]])
def test_two_ids_and_one_that_is_not_ascii_are_replaced(given: list[str]) -> None:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(application())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/fine", headers=[(b"x-request-id", each.encode()) for each in given])

    assert asyncio.run(run()).headers["x-request-id"].startswith("req-")


def test_lines_about_a_fault_have_the_request_they_belong_to(caplog: pytest.LogCaptureFixture) -> None:
    answer, _ = get("/broken", caplog)
    (line,) = [record for record in caplog.records if record.name == "faasmoe.api.errors"]
    assert vars(line)["request"] == answer.headers["x-request-id"]

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from faasmoe.api.http.entrance import Entrance
from faasmoe.api.http.health import Health, Parts
from tests.tenancies import PlayedTenancy
from tests.unit.api.apps import Orchestrator, app_of

LEDGER = "the ledger is full"


def parts(
    orchestrators: Any = "ok", functions: Any = "ok", ledger: str | None = None, anyone: bool = False
) -> Parts:
    return Parts(lambda: orchestrators, lambda: functions, lambda: ledger, lambda: anyone)


def entrance(health: Health | None = None) -> Entrance:
    made = Entrance(health or Health(parts=parts()))
    made.open(app_of(Orchestrator()), lambda _: None)
    return made


def ask(asked: Entrance, path: str, method: str = "GET") -> httpx.Response:
    async def run() -> httpx.Response:
        async with client(asked) as it:
            return await it.request(method, path)

    return asyncio.run(run())


def client(asked: Entrance) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(asked, raise_app_exceptions=False), base_url="http://test"
    )


@pytest.mark.parametrize(
    ("health", "status", "word", "reasons"),
    [
        (Health("loading demo"), 503, "starting", ["loading demo"]),
        (Health(parts=parts()), 200, "ok", []),
        (Health(parts=parts("starting")), 503, "starting", ["no orchestrator runs"]),
        (Health(parts=parts("stopped")), 503, "stopped", ["no orchestrator runs"]),
        (Health(parts=parts(functions="starting")), 503, "starting", ["the platform cannot start functions"]),
        (Health(parts=parts(ledger=LEDGER)), 200, "degraded", [LEDGER]),
        (
            Health(parts=parts("starting", "starting", LEDGER)),
            503,
            "starting",
            ["no orch", "the platform", LEDGER],
        ),
        (Health(parts=parts(), stopping="it ends"), 503, "stopped", ["it ends"]),
    ],
)
def test_health_and_readiness(health: Health, status: int, word: str, reasons: list[str]) -> None:
    for path in ("/health", "/ready"):
        answer = ask(entrance(health), path)
        told = answer.json()
        assert (answer.status_code, told["status"]) == (status, word)
        assert len(told["reasons"]) == len(reasons)
        assert all(said.startswith(wanted) for said, wanted in zip(told["reasons"], reasons, strict=True))
        assert told.get("ready", status == 200) == (status == 200)
        assert told.get("open") == (None if health.parts is None else False)
        assert answer.headers["cache-control"] == "no-store"
    assert ask(entrance(Health(parts=parts(anyone=True))), "/health").json()["open"] is True


def test_before_it_is_open_everything_is_told_to_come_again() -> None:
    shut = Entrance(Health("loading demo"))
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/completions"), ("GET", "/metrics"), ("GET", "/x")):
        answer = ask(shut, path, method)
        error = answer.json()["error"]
        assert (answer.status_code, answer.headers["retry-after"], error["code"]) == (503, "5", "engine_starting")
        assert error["message"] == "loading demo; try again"
        assert answer.headers["connection"] == "close"


def test_after_it_was_closed_only_health_and_metrics_are_told() -> None:
    closed = entrance()
    closed.close("the server is shutting down")
    answer = ask(closed, "/v1/models")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert answer.json()["error"]["message"] == "the server is shutting down; try again"
    assert ask(closed, "/metrics").status_code != 503  # it has passed; there are no figures in this test
    assert ask(closed, "/ready").json()["ready"] is False


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/models", "/v1/models/m"])
def test_head_works_where_get_does(path: str) -> None:
    wanted = ask(entrance(), path)
    answer = ask(entrance(), path, "HEAD")
    assert (answer.status_code, answer.headers["content-type"]) == (
        wanted.status_code,
        wanted.headers["content-type"],
    )


@pytest.mark.parametrize(
    ("method", "path"), [("HEAD", "/v1/completions"), ("POST", "/health"), ("DELETE", "/ready")]
)
def test_other_methods_are_refused(method: str, path: str) -> None:
    answer = ask(entrance(), path, method)
    assert answer.status_code == 405
    assert answer.headers["allow"]


def test_it_is_idle_when_the_last_request_has_ended() -> None:
    go_on = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> None:
        busy = Entrance(Health(parts=parts()))
        busy.open(slow, lambda _: None)
        await asyncio.wait_for(busy.idle(), 30)
        async with client(busy) as it:
            asked = [asyncio.create_task(it.get("/v1/models")) for _ in range(2)]
            while busy.running < 2:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0)
            idle = asyncio.create_task(busy.idle())
            await asyncio.sleep(0)
            assert not idle.done()
            assert (await it.get("/health")).status_code == 200
            go_on.set()
            await asyncio.gather(*asked)
            await asyncio.wait_for(idle, 30)
            assert busy.running == 0

    asyncio.run(run())


def test_the_schema_wants_a_key_and_there_are_no_pages_for_it(no_tenant: Callable[[str], int]) -> None:
    assert [no_tenant(path) for path in ("/docs", "/redoc", "/openapi.json")] == [404] * 3
    assert no_tenant("/v1/openapi.json") == 401
    assert ask(entrance(), "/v1/openapi.json").json()["info"]["title"] == "FaaSMoE"


@pytest.fixture
def no_tenant() -> Callable[[str], int]:
    made = Entrance(Health(parts=parts()))
    made.open(app_of(Orchestrator(), PlayedTenancy(anonymous=False)), lambda _: None)
    return lambda path: ask(made, path).status_code

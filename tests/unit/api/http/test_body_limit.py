from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi import FastAPI, Request

from faasmoe.api import errors
from faasmoe.api.http.body_limit import MAX_BODY, MAX_HELD_EACH, BodyLimit
from faasmoe.errors import EngineBusy


def app(seconds: float) -> FastAPI:
    made = FastAPI()
    made.add_middleware(BodyLimit, seconds=seconds)
    errors.install(made)

    @made.post("/")
    async def length(request: Request) -> int:
        return len(await request.body())

    return made


def send(parts: Sequence[bytes], whole: bool = True, seconds: float = 300.0) -> list[dict[str, Any]]:
    """What is answered to a body of these parts; if it is not `whole`, nothing follows them."""
    answers: list[dict[str, Any]] = []
    left = list(parts)

    async def receive() -> dict[str, Any]:
        if left:
            part = left.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(left) or not whole}
        return await asyncio.get_running_loop().create_future()

    async def answer(message: Any) -> None:
        answers.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
    asyncio.run(asyncio.wait_for(app(seconds)(scope, receive, answer), 30))
    return answers


def test_a_body_of_the_largest_size_is_taken() -> None:
    start, body = send([b"x" * (MAX_BODY // 2)] * 2)
    assert (start["status"], body["body"]) == (200, str(MAX_BODY).encode())


def test_a_larger_one_is_refused_as_soon_as_it_is() -> None:
    start, body = send([b"x" * MAX_BODY, b"y"], whole=False)
    assert start["status"] == 413
    assert b"larger than 4194304 bytes" in body["body"]


@pytest.mark.parametrize("parts", [[], [b"{"]])
def test_a_body_that_does_not_come_is_not_waited_for(parts: list[bytes]) -> None:
    start, body = send(parts, whole=False, seconds=0.02)
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]
    assert b"has not come within 0.02 seconds" in body["body"]


def test_bodies_that_are_held_together_are_bounded_by_tenant() -> None:
    limit = BodyLimit(app(300.0))
    limit.hold("a", MAX_HELD_EACH)
    with pytest.raises(EngineBusy, match="too many long bodies") as caught:
        limit.hold("a", 1)
    assert caught.value.retry_after == 1.0
    for tenant in "bcd":
        limit.hold(tenant, MAX_HELD_EACH)
    with pytest.raises(EngineBusy):
        limit.hold("e", 1)
    limit.let_go("b", MAX_HELD_EACH)
    limit.hold("e", 1)


def test_a_body_is_held_until_its_answer_begins() -> None:
    held: list[int] = []

    async def reading(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        held.append(sum(limit._held.values()))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        held.append(sum(limit._held.values()))
        raise ConnectionError

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    async def answer(_: Any) -> None:
        pass

    limit = BodyLimit(reading)
    with pytest.raises(ConnectionError):
        asyncio.run(limit({"type": "http"}, receive, answer))  # type: ignore[arg-type]
    assert held == [1000, 0]
    assert not limit._held

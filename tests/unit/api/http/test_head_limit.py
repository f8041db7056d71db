from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from faasmoe.api.http.head_limit import HeadLimit
from tests.second_api import BOTH

HEAD = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


class Hasty(HeadLimit):
    seconds = 0.02
    apis = BOTH


class Wire(asyncio.Transport):
    """Where a protocol writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = asyncio.Event()

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed.set()

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def resume_reading(self) -> None:
        """Nothing was paused."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(2 * Hasty.seconds)  # longer than a head may take
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def answer(*parts: bytes, then: Sequence[bytes] = ()) -> bytes:
    """What is written to a client that sends these parts, and others after the first answer, until it is hung up."""

    async def run() -> bytes:
        config = uvicorn.Config(app, log_config=None, timeout_keep_alive=300, lifespan="off")
        protocol, wire = Hasty(config, ServerState(), {}), Wire()
        protocol.connection_made(wire)
        for part in parts:
            protocol.data_received(part)
        if then:
            await asyncio.gather(*protocol.tasks)
            for part in then:
                protocol.data_received(part)
        async with asyncio.timeout(30):
            await wire.closed.wait()
        protocol.connection_lost(None)
        return wire.written

    return asyncio.run(run())


def test_what_came_while_the_server_was_stopped_is_read_before_anybody_is_hung_up_on() -> None:
    async def run() -> bytes:
        config = uvicorn.Config(app, log_config=None, timeout_keep_alive=0.01, lifespan="off")
        protocol, wire = Hasty(config, ServerState(), {}), Wire()
        protocol.connection_made(wire)
        for _ in range(2):
            time.sleep(3 * Hasty.seconds)  # noqa: ASYNC251 - nothing runs, and all limits pass
            asyncio.get_running_loop().call_later(0, lambda: asyncio.get_running_loop().call_soon(
                protocol.data_received, HEAD))  # fmt: skip
            async with asyncio.timeout(30):
                while not protocol.tasks:  # noqa: ASYNC110 - the protocol tells nobody
                    await asyncio.sleep(0)
                await asyncio.gather(*protocol.tasks)
        protocol.connection_lost(None)
        return wire.written

    assert asyncio.run(run()).count(b"HTTP/1.1 200 OK") == 2


def test_headers_that_do_not_end_are_not_waited_for() -> None:
    head, _, body = answer(b"POST /v1/completions HTTP/1.1\r\nHost: here\r\n", b"X-Slow: ").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head
    assert b"headers have not come within 0.02 seconds" in body


def test_who_says_nothing_is_hung_up_on() -> None:
    assert answer() == b""


def test_an_answer_may_take_longer_and_the_next_headers_may_not() -> None:
    written = answer(HEAD, then=[HEAD[:10]])
    assert written.startswith(b"HTTP/1.1 200 OK")
    assert written.count(b"HTTP/1.1 408 ") == 1


def test_what_two_servers_could_read_differently_is_refused_with_an_error_and_the_connection_closed() -> None:
    head = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
    written = answer(head + b"0\r\n\r\n" + HEAD)
    head, _, body = written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    assert b"connection: close" in head
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert written.count(b"HTTP/1.1") == 1


SAY = b"POST /v1/say?x=1 HTTP/1.1\r\nHost: here\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (SAY, 408),
        (SAY + b"X: " + b"y" * 70_000, 431),
        (SAY + b" folded: header\r\n\r\n", 400),
        (SAY + b"no header\r\n\r\n", 400),
        (SAY + CHUNKED + b"Content-Length: 2\r\n\r\n", 400),
        (SAY + CHUNKED + b"\r\nno chunk\r\n", 400),
        (b"POST /v1/%73ay/more HTTP/1.1\n", 400),
    ],
)
def test_the_path_decides_whose_shape_a_refusal_has(sent: bytes, status: int) -> None:
    head, _, body = answer(sent).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"say-again: true" in head
    assert set(json.loads(body)) == {"wrong", "field"}


@pytest.mark.parametrize("sent", [b"POST /v1/sa", b"POST ", b"\0\r\n\r\n", SAY.replace(b"say", b"saying")])
def test_a_refusal_of_another_path_or_of_none_has_the_first_apis_shape(sent: bytes) -> None:
    assert set(json.loads(answer(sent).partition(b"\r\n\r\n")[2])) == {"error"}


def test_headers_without_end_are_too_large() -> None:
    written = answer(b"GET / HTTP/1.1\r\n", *[b"X: " + b"y" * 1000 + b"\r\n"] * 70)
    assert written.startswith(b"HTTP/1.1 431 ")


def test_a_body_that_goes_wrong_after_the_answer_has_begun_ends_the_connection() -> None:
    begun = asyncio.Event()

    async def early(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok", "more_body": True})
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    async def run() -> bytes:
        config = uvicorn.Config(early, log_config=None, timeout_keep_alive=300, lifespan="off")
        protocol, wire = HeadLimit(config, ServerState(), {}), Wire()
        protocol.connection_made(wire)
        protocol.data_received(b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n")
        await begun.wait()
        protocol.data_received(b"no chunk\r\n")
        assert wire.is_closing()
        protocol.connection_lost(None)
        await asyncio.gather(*protocol.tasks)
        return wire.written

    assert asyncio.run(run()).count(b"HTTP/1.1") == 1

"""The HTTP server over real sockets, with applications that need nothing behind them."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from faasmoe.api.http.entrance import Entrance
from faasmoe.api.http.health import Health, Parts
from faasmoe.api.http.server import LAST_WORDS, HttpServer

HEAD = b"POST /v1/x HTTP/1.1\r\nHost: here\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: here\r\n\r\n"


@asynccontextmanager
async def served(app: Any, grace: float = 0.0, cut: Any = lambda _: None) -> AsyncIterator[tuple[HttpServer, int]]:
    entrance = Entrance(Health(parts=Parts(lambda: "ok", lambda: "ok", lambda: None, lambda: True)))
    entrance.open(app, cut)
    server = HttpServer(entrance, grace)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            async with asyncio.timeout(30):
                yield server, port
                server.end()
                await serving
        finally:
            serving.cancel()


async def fine(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 0\r\nContent-Length: 40\r\n\r\n",
        HEAD + b"Content-Length : 40\r\n\r\n",
        HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ],
)
def test_a_request_that_can_be_misread_ends_the_connection_and_hides_no_second_one(request_: bytes) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await fine(scope, receive, send)

    async def run() -> bytes:
        async with served(app) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request_ + SMUGGLED)
            answer = await reader.read()  # until it is closed
            writer.close()
            return answer

    answer = asyncio.run(run())
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer
    assert "/smuggled" not in seen


def test_without_descriptors_accepting_rests_and_then_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = 0
    accept = socket.socket.accept

    def refuse(_: socket.socket) -> Any:
        nonlocal tried
        tried += 1
        raise OSError(errno.EMFILE, "Too many open files")

    async def run() -> int:
        async with served(fine) as (_, port), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/health")).status_code == 200
            monkeypatch.setattr(socket.socket, "accept", refuse)
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            while not caplog.records:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
            tries = tried
            monkeypatch.setattr(socket.socket, "accept", accept)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as other:
                assert (await other.get("/health", timeout=20)).status_code == 200
            writer.close()
            return tries

    assert asyncio.run(run()) <= 32  # asyncio logs each; it would be 2048


async def endless(scope: Any, receive: Any, send: Any) -> None:
    left = asyncio.create_task(receive_all(receive))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while not left.done():
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        await asyncio.sleep(0)


async def receive_all(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def test_a_client_that_does_not_read_holds_up_nothing_and_leaves_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    cuts: list[str] = []

    async def run() -> float:
        loop = asyncio.get_running_loop()
        async with served(endless, cut=cuts.append) as (server, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /v1/x HTTP/1.1\r\nHost: here\r\n\r\n")
            while not server._entrance.running:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
            began = loop.time()
        writer.close()
        return loop.time() - began

    assert asyncio.run(run()) < LAST_WORDS + 1.5
    assert cuts == ["the server is shutting down"]
    assert [record.getMessage() for record in caplog.records] == ["requests are cut off by the end of the server"]

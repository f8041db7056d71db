"""Keep-alive messages of a stream, on a clock that moves when everybody waits."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.types import Message

from faasmoe.api.http.keep_alive import KeepAlive

START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b"", "more_body": False}


class _Jumping(selectors.DefaultSelector):
    """Waits for no time that passes: it has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits for ever"
        self.now += timeout
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run(test: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(test)


class Client:
    """Notes what it is sent, and when."""

    def __init__(self) -> None:
        self.got: list[tuple[float, bytes]] = []
        self.ended = False

    async def send(self, message: Message) -> None:
        assert not self.ended
        if message["type"] == "http.response.body":
            self.ended = not message["more_body"]
            if message["body"]:
                self.got.append((round(asyncio.get_running_loop().time(), 3), message["body"]))


def body(text: bytes) -> Message:
    return {"type": "http.response.body", "body": text, "more_body": True}


PING = b"event: ping\n\n"


def kept_alive(client: Client, since: float = 0, message: Callable[[], bytes] = lambda: PING) -> KeepAlive:
    return KeepAlive(client.send, message, 3, since)


def test_each_silence_gets_a_message_and_nothing_else_does() -> None:
    async def test() -> None:
        client = Client()
        async with kept_alive(client) as send:
            await send(START)
            await asyncio.sleep(7)
            for text in (b"a", b"b", b"c", b"d"):
                await send(body(text))
                await asyncio.sleep(2)
            await asyncio.sleep(2)
            await send(END)
        assert client.got == [
            (3, PING),
            (6, PING),
            (7, b"a"),
            (9, b"b"),
            (11, b"c"),
            (13, b"d"),
            (16, PING),
        ]

    run(test())


def test_one_that_is_due_comes_with_the_headers() -> None:
    async def test() -> None:
        client = Client()
        await asyncio.sleep(3)
        async with kept_alive(client, since=0) as send:
            assert not client.got
            await send(START)
            await asyncio.sleep(1)
            await send(END)
        assert client.got == [(3, PING)]

    run(test())


def test_an_api_may_have_nothing_to_say() -> None:
    async def test() -> None:
        client, messages = Client(), [b"", PING, b""]
        async with kept_alive(client, message=lambda: messages.pop(0)) as send:
            await send(START)
            await asyncio.sleep(10)
            await send(END)
        assert client.got == [(6, PING)]

    run(test())


def test_nothing_follows_the_end() -> None:
    async def test() -> None:
        client = Client()
        async with kept_alive(client) as send:
            await send(START)
            await send(END)
            await asyncio.sleep(10)
        assert (client.ended, client.got) == (True, [])

    run(test())


def test_nothing_is_sent_to_a_client_that_was_never_answered() -> None:
    async def test() -> None:
        client = Client()
        async with kept_alive(client):
            await asyncio.sleep(10)
        assert not client.got

    run(test())


def test_a_message_that_cannot_be_had_is_an_error_of_the_stream() -> None:
    async def test() -> None:
        def fails() -> bytes:
            raise LookupError("a defect")

        client = Client()
        async with kept_alive(client, message=fails) as send:
            await send(START)
            await asyncio.sleep(10)

    with pytest.raises(LookupError):
        run(test())

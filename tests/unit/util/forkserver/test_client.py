"""The client of a fork server, whose part is played over its socket by the test."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from faasmoe.errors import FaasmoeError, MessageError, ProcessLost
from faasmoe.util.forkserver import client as client_module
from faasmoe.util.forkserver.client import ForkServerClient
from faasmoe.util.forkserver.messages import (
    LARGEST_PACKET,
    Alive,
    Ended,
    Event,
    Fork,
    Forked,
    ForkFailed,
    Kill,
    Killed,
    Load,
    Loaded,
    LoadFailed,
    Ping,
    pack,
)
from faasmoe.util.forkserver.order_queue import OrderQueue
from tests.unit.util.forkserver.played import PlayedServer, settle


def decode(payload: bytes) -> str:
    if payload == b"\xff":
        raise MessageError("no text")
    return payload.decode()


Client = ForkServerClient[str]
End = tuple[str, int | None]


def play(test: Callable[[Client, PlayedServer], Awaitable[None]]) -> tuple[list[Event], list[End]]:
    """Returns the events that the client has told, and the end."""
    server = PlayedServer()
    heard: list[Event] = []
    ends: list[End] = []

    async def run() -> None:
        client = Client(
            name="server",
            role="worker",
            spawn=server.spawn,
            decode=decode,
            decode_error=lambda payload: FaasmoeError(decode(payload)),
            on_event=heard.append,
            on_end=lambda error, status: ends.append((str(error), status)),
        )
        try:
            await test(client, server)
        finally:
            client.end(ProcessLost("the test is over"))
            server.socket.close()
        assert not client.running
        assert server.kills == 1

    asyncio.run(run())
    return heard, ends


def test_loading_is_answered_by_a_payload() -> None:
    async def test(client: Client, server: PlayedServer) -> None:
        assert client.pid == os.getpid()
        client.load(b"this")
        assert server.order() == Load(b"this")
        assert client.awaited
        await server.say(Loaded(b"that"), Loaded(b"again"))
        assert await client.loaded == "that"
        assert not client.awaited

    assert play(test) == ([Loaded(b"that"), Loaded(b"again")], [("the test is over", None)])


def test_an_error_in_loading_is_told_as_it_is() -> None:
    async def test(client: Client, server: PlayedServer) -> None:
        await server.say(LoadFailed(b"cut short"))
        with pytest.raises(FaasmoeError, match="cut short"):
            await client.loaded
        assert not client.running

    play(test)


def test_children_have_numbers_of_their_own_and_keep_their_events_apart() -> None:
    async def test(client: Client, server: PlayedServer) -> None:
        await server.say(Loaded())
        children = [client.fork([server.socket.fileno()], b"%d" % i) for i in range(3)]
        assert [server.order() for _ in range(3)] == [Fork(0, b"0"), Fork(1, b"1"), Fork(2, b"2")]
        assert client.awaited
        await server.say(Forked(1, 71), Forked(0, 70), ForkFailed(2, "no memory"))
        await server.say(Forked(99, 5), Ended(99, 5), Killed(99), ForkFailed(99, ""))
        assert [await child.pid for child in children[:2]] == [70, 71]
        with pytest.raises(ProcessLost, match="no worker could be forked: no memory"):
            await children[2].pid
        assert await children[2].ended == 1
        assert not client.awaited
        await server.say(Ended(1, 3), Ended(1, 4), Forked(1, 5))
        assert await children[1].ended == 3
        assert not children[0].ended.done()
        assert client.fork([server.socket.fileno()]).number == 3

    play(test)


def test_a_kill_is_awaited_and_one_of_a_child_that_has_ended_is_not_sent() -> None:
    async def test(client: Client, server: PlayedServer) -> None:
        await server.say(Loaded())
        child = client.fork([server.socket.fileno()])
        await server.say(Forked(0, 70))
        server.order()
        client.kill(99)  # unknown
        client.kill(0)
        assert server.order() == Kill(0)
        assert client.awaited
        await server.say(Killed(0))
        assert not client.awaited
        await server.say(Ended(0, -signal.SIGKILL))
        assert await child.ended == -signal.SIGKILL
        client.kill(0)
        with pytest.raises(BlockingIOError):
            server.order()

    play(test)


@pytest.mark.parametrize(
    "event",
    [
        b"\xc1",
        pack(Kill(1)),
        pack(Loaded(b"\xff")),
        pack(LoadFailed(b"\xff")),
        pack(Loaded(bytes(LARGEST_PACKET))),
    ],
    ids=["malformed", "an order", "no payload", "no error", "too long"],
)
def test_an_event_that_cannot_be_read_ends_the_server(event: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def test(client: Client, server: PlayedServer) -> None:
        child = client.fork([server.socket.fileno()])
        await server.say(event)
        for waiting in (client.loaded, child.pid):
            with pytest.raises(ProcessLost, match="the server was ended: its socket gave"):
                await waiting
        assert await child.ended == -signal.SIGKILL

    heard, ((_, status),) = play(test)
    assert (heard, status) == ([], None)
    assert "the server is ended: its socket gave" in caplog.text


def test_a_server_that_hangs_up_has_ended_and_so_have_its_children() -> None:
    async def test(client: Client, server: PlayedServer) -> None:
        await server.say(Loaded())
        child = client.fork([server.socket.fileno()])
        server.order()
        await server.say(Forked(0, 70))
        server.returncode = 3
        await server.leave()
        assert await child.ended == -signal.SIGKILL
        for order in (lambda: client.load(b""), lambda: client.fork([server.socket.fileno()])):
            with pytest.raises(ProcessLost, match="the server has ended"):
                order()
        client.kill(0)

    assert play(test)[1] == [("the server has ended", 3)]


@pytest.mark.parametrize("read", [True, False])
def test_orders_to_a_server_that_is_just_ending_are_lost_with_it(read: bool) -> None:
    async def test(client: Client, server: PlayedServer) -> None:
        client.load(b"")
        if read:  # else the kernel resets the connection
            server.order()
        server.socket.send(pack(Loaded(b"that")))
        server.socket.close()
        child = client.fork([0])
        client.ping()
        assert client.running
        await settle()
        assert not client.running
        assert await client.loaded == "that"  # it was said before the end
        with pytest.raises(ProcessLost, match="the server has ended"):
            await child.pid

    play(test)


def test_a_sign_of_life_is_asked_for_and_told() -> None:
    async def test(client: Client, server: PlayedServer) -> None:
        client.ping()
        assert server.order() == Ping()
        await server.say(Alive())

    assert play(test)[0] == [Alive()]


def test_a_child_gets_several_descriptors() -> None:
    async def test(client: Client, server: PlayedServer) -> None:
        client.fork([server.socket.fileno()] * 3, b"x")
        assert server.order() == Fork(0, b"x")
        assert server.descriptors == 3

    play(test)


def test_those_who_wait_get_the_error_of_the_end() -> None:
    async def test(client: Client, server: PlayedServer) -> None:
        child = client.fork([server.socket.fileno()])
        client.end(ProcessLost("enough"))
        client.end(ProcessLost("again"))
        for waiting in (client.loaded, child.pid):
            with pytest.raises(ProcessLost, match="enough"):
                await waiting

    assert play(test)[1] == [("enough", None)]


def test_orders_wait_until_the_server_reads_them() -> None:
    async def test(client: Client, server: PlayedServer) -> None:
        for _ in range(1000):
            client.fork([0])
        await settle()
        numbers = []
        for _ in range(1000):
            order = server.order()
            assert isinstance(order, Fork)
            numbers.append(order.number)
            await asyncio.sleep(0)
        assert numbers == list(range(1000))
        assert client.running

    play(test)


def test_a_server_that_takes_no_orders_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "OrderQueue", partial(OrderQueue, most=100))

    async def test(client: Client, server: PlayedServer) -> None:
        children = [client.fork([0]) for _ in range(1000)]
        await settle()
        assert not client.running
        assert all(child.ended.done() for child in children)
        with pytest.raises(ProcessLost, match="takes no orders"):
            await client.loaded

    assert play(test)[1] == [("the server takes no orders", None)]


def test_a_payload_that_is_too_long_is_not_sent() -> None:
    async def test(client: Client, server: PlayedServer) -> None:
        for order in (lambda: client.load(bytes(LARGEST_PACKET)), lambda: client.fork([0], bytes(LARGEST_PACKET))):
            with pytest.raises(OSError, match="Message too long"):
                order()
        await settle()
        with pytest.raises(BlockingIOError):
            server.order()
        assert client.running

    play(test)

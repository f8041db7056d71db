"""What clients and the supervisor are answered, over streams that are no connections."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from faasmoe.platforms.local.daemon.daemon import Daemon
from faasmoe.platforms.local.daemon.lifecycle import Lifecycle
from faasmoe.platforms.local.limits import INSTANCE_BYTES
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.protocol import messages, supervision, wire
from faasmoe.platforms.local.protocol.messages import (
    Activate,
    Activated,
    Completed,
    ControlMessage,
    NotActivated,
    PlatformFailed,
    Wanted,
)
from faasmoe.platforms.local.protocol.supervision import AskHealth
from tests.unit.clocks import VirtualLoop
from tests.unit.platforms.local.daemon.pools import CHARGE, SPEC, function_spec
from tests.unit.platforms.local.daemon.world import FakeZygote

F = function_spec("f")


class Client:
    """A connection's two ends; what the daemon writes is parsed."""

    def __init__(self, daemon: Daemon) -> None:
        self.reader = asyncio.StreamReader()
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed = False
        writer: Any = self
        self.served = asyncio.ensure_future(daemon._client(self.reader, writer))

    def write(self, data: bytes) -> None:
        self.heard.put_nowait(data[wire.HEAD :])

    async def drain(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def send(self, message: ControlMessage) -> None:
        self.reader.feed_data(messages.pack(message))

    async def raw(self) -> bytes:
        return await self.heard.get()

    async def ask(self, request: ControlMessage) -> messages.Reply:
        self.send(request)
        return messages.read_reply(await self.raw())

    async def activation(self) -> messages.Activation:
        return messages.read_activation(await self.raw())


class Server:
    """A daemon on a fake zygote."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.loop = VirtualLoop()
        self.supervisor, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.supervisor.setblocking(False)
        self._theirs = theirs
        self.daemon = Daemon(folder, LocalOptions(**options), theirs, lifecycle=self._lifecycle, clock=self._now)

    def _now(self) -> int:
        return round(self.loop.now * 1e9)

    def _lifecycle(self, *arguments: Any) -> Lifecycle:
        return Lifecycle(
            *arguments, zygote=self._zygote, listen=lambda _: socket.socket(socket.AF_UNIX), clock=self._now
        )

    def _zygote(self, *arguments: Any) -> FakeZygote:
        self.zygote = FakeZygote(*arguments)
        return self.zygote

    def run(self, story: Callable[[Server, Client], Awaitable[None]]) -> None:
        async def play() -> None:
            await self.daemon._restore()
            client = Client(self.daemon)
            await story(self, client)
            client.reader.feed_eof()
            await client.served
            assert client.closed
            await self.daemon._life.close(1.0)

        try:
            self.loop.run_until_complete(play())
        finally:
            self.loop.close()
            self.supervisor.close()
            self._theirs.close()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_functions_are_deployed_reported_and_removed(server: Server) -> None:
    async def story(_: Server, client: Client) -> None:
        assert await client.ask(messages.Deploy((F, function_spec("g")))) == Completed()
        report = await client.ask(messages.AskStatus())
        assert isinstance(report, messages.PoolReport)
        assert [function.name for function in report.pool.functions] == ["f", "g"]
        assert await client.ask(messages.Remove(("f",))) == Completed()
        assert await client.ask(messages.Remove(("f",))) == messages.NotDeployed("f")
        assert await client.ask(messages.Stop(("f",))) == messages.NotDeployed("f")

    server.run(story)


def test_the_next_daemon_knows_the_functions(tmp_path: Path) -> None:
    async def deploy(_: Server, client: Client) -> None:
        forever = function_spec("forever", keep_alive=float("inf"))
        await client.ask(messages.Deploy((SPEC, forever, function_spec("g"))))
        await client.ask(messages.Remove(("g",)))

    async def look(server: Server, _: Client) -> None:
        known = server.daemon._pool.functions
        assert {name: state.spec.keep_alive for name, state in known.items()} == {
            SPEC.name: 17.0,
            "forever": float("inf"),
        }
        assert known[SPEC.name].spec.files == SPEC.files

    Server(tmp_path, keep_alive=17.0).run(deploy)
    (tmp_path / "left.sock").touch()
    Server(tmp_path, keep_alive=17.0).run(look)
    assert [file.name for file in tmp_path.iterdir()] == ["functions.json"]


def test_a_spec_that_makes_no_sense_is_refused_without_paths(server: Server) -> None:
    async def story(server: Server, client: Client) -> None:
        raw = json.loads(messages.pack(messages.Deploy((F,)))[wire.HEAD :])
        raw["functions"][0]["handler"] = "/home/somebody/module"
        client.reader.feed_data(wire.framed(json.dumps(raw).encode()))
        reply = messages.read_reply(await client.raw())
        assert reply == PlatformFailed("ValueError: handler 'module' of f is not module:attribute")
        assert server.daemon._pool.functions == {}

    server.run(story)


def test_what_is_not_understood_is_answered_and_the_connection_goes_on(server: Server) -> None:
    async def story(_: Server, client: Client) -> None:
        for nonsense in ({}, {"kind": "rm"}, {"kind": "Activate"}, {"kind": "Completed"}):
            client.reader.feed_data(wire.framed(json.dumps(nonsense).encode()))
            reply = messages.read_reply(await client.raw())
            assert isinstance(reply, PlatformFailed)
            assert "not understood" in reply.cause
        assert await client.ask(messages.Deploy(())) == Completed()

    server.run(story)


@pytest.mark.parametrize("noise", [b"\xff" * 64, b"\x10" + bytes(7) + b"x" * 16, b"\2" + bytes(7) + b"[]"])
def test_noise_ends_the_connection(server: Server, noise: bytes) -> None:
    async def story(_: Server, client: Client) -> None:
        client.reader.feed_data(noise)
        await client.served
        assert client.heard.empty()

    server.run(story)


def test_instances_are_handed_out_one_by_one(server: Server) -> None:
    async def story(_: Server, client: Client) -> None:
        await client.ask(messages.Deploy((F, function_spec("g", max_instances=2))))
        client.send(Activate((Wanted(4, "f"), Wanted(5, "none"), Wanted(6, "g")), 10.0))
        answers = {answer.number: answer for answer in [await client.activation() for _ in range(3)]}
        assert answers[5] == NotActivated(5, messages.NotDeployed("none"))
        first, last = answers[4], answers[6]
        assert isinstance(first, Activated)
        assert isinstance(last, Activated)
        assert (first.scalable, last.scalable) == (False, True)
        assert first.memory == CHARGE
        assert (first.last_end, first.scarce) == ("", False)

    server.run(story)


def test_an_instance_that_its_caller_lost_is_not_handed_out_again(server: Server) -> None:
    async def story(_: Server, client: Client) -> None:
        await client.ask(messages.Deploy((F,)))
        client.send(Activate((Wanted(0, "f"),), 10.0))
        lost = await client.activation()
        assert isinstance(lost, Activated)
        client.send(Activate((Wanted(1, "f", lost.path),), 10.0))
        found = await client.activation()
        assert isinstance(found, Activated)
        assert found.path != lost.path

    server.run(story)


def test_who_waits_too_long_for_memory_learns_who_has_it(tmp_path: Path) -> None:
    async def story(server: Server, client: Client) -> None:
        await client.ask(messages.Deploy((F, function_spec("g"))))
        client.send(Activate((Wanted(0, "f"),), 10.0))
        assert isinstance(await client.activation(), Activated)
        (instance,) = server.zygote.instances
        instance.begin()
        begun = server.loop.now
        client.send(Activate((Wanted(1, "g"),), 5.0))
        assert await client.activation() == NotActivated(
            1,
            messages.DeadlinePassed(
                f"the memory budget of {budget} bytes is full: 1 instances take {CHARGE} bytes"
            ),
        )
        assert server.loop.now - begun == pytest.approx(5.0, abs=0.1)
        instance.answer()

    budget = CHARGE + 2 * INSTANCE_BYTES
    Server(tmp_path, memory_budget=budget).run(story)


def test_nothing_is_started_for_a_client_that_has_gone(tmp_path: Path) -> None:
    async def story(server: Server, client: Client) -> None:
        await client.ask(messages.Deploy((F,)))
        client.send(Activate((Wanted(0, "f"),), 10.0))
        await asyncio.sleep(0)
        client.reader.feed_eof()
        await client.served
        await asyncio.sleep(60)
        assert server.zygote.instances == []
        assert server.daemon._pool.waiting == 0
        assert client.heard.empty()

    Server(tmp_path).run(story)


def test_a_budget_that_is_too_small_is_told_in_bytes(tmp_path: Path) -> None:
    async def story(_: Server, client: Client) -> None:
        await client.ask(messages.Deploy((F, function_spec("g"))))
        assert await client.ask(messages.Fits(("f",), 5.0)) == Completed()
        own = 2 * INSTANCE_BYTES
        assert await client.ask(messages.Fits(("f", "g"), 5.0)) == messages.BudgetTooSmall(own + 2 * CHARGE, own)

    Server(tmp_path, memory_budget=CHARGE + 2 * INSTANCE_BYTES).run(story)


def test_prewarming_starts_one_of_each_or_says_why_not(server: Server) -> None:
    async def story(server: Server, client: Client) -> None:
        await client.ask(messages.Deploy((F, function_spec("g"))))
        assert await client.ask(messages.Prewarm(("f", "g"), 10.0)) == Completed()
        assert len(server.zygote.instances) == 2
        server.zygote.end("killed")
        refused = PlatformFailed("its modules do not exist")
        server.zygote.unusable = refused.cause
        assert await client.ask(messages.Prewarm(("f", "g"), 10.0)) == refused

    server.run(story)


def health(server: Server) -> str:
    """What the supervisor is told when it asks."""
    server.supervisor.send(supervision.pack(AskHealth()))
    server.daemon._asked()
    report = supervision.read_report(server.supervisor.recv(supervision.LARGEST_PACKET))
    assert isinstance(report, supervision.HealthReport)
    return report.trouble


def test_the_supervisor_is_told_what_is_wrong_in_one_line(server: Server) -> None:
    async def story(server: Server, _: Client) -> None:
        assert health(server) == ""
        server.zygote.trouble = "it\nends " + "x" * 1000
        assert health(server) == "it ends " + "x" * 292
        assert not server.daemon._stopping.is_set()
        server.supervisor.shutdown(socket.SHUT_WR)
        server.daemon._asked()
        assert server.daemon._stopping.is_set()

    server.run(story)


def test_a_supervisor_that_cannot_be_understood_has_no_daemon_any_more(server: Server) -> None:
    async def story(server: Server, _: Client) -> None:
        server.supervisor.send(b"?")
        server.daemon._asked()
        assert server.daemon._stopping.is_set()

    server.run(story)

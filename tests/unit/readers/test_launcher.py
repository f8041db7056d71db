"""The gateway's end of readers, whose fork server is played over its socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from faasmoe.api.parsed_request import Bounds
from faasmoe.errors import CheckpointError, EngineStopped, ProcessLost
from faasmoe.readers import launcher as module
from faasmoe.readers.launcher import Reader, ReaderLauncher
from faasmoe.readers.messages import (
    LENGTH,
    Job,
    ReaderOptions,
    ReaderSetup,
    Refused,
    SetupFailed,
    frame,
    pack,
    read_options,
    read_setup,
)
from faasmoe.util.forkserver.messages import Ended, Fork, Forked, Kill, Killed, Load, Loaded, LoadFailed
from faasmoe.util.watchdog import Overdue, Stalled
from tests.unit.util.forkserver.played import PlayedServer, settle

SETUP = ReaderSetup("/tokenizer", Bounds("m", 100, 200), control=False)
Servers = list[PlayedServer]


def play(
    monkeypatch: pytest.MonkeyPatch,
    test: Callable[[ReaderLauncher, Servers], Awaitable[None]],
    watched: Callable[..., Any] | None = None,
) -> None:
    """`watched`: what is done in place of `watchdog.watched`, by default nothing but waiting."""

    async def wait(work: Coroutine[Any, Any, Any], *_: object) -> Any:
        return await work

    async def run() -> None:
        servers: Servers = []

        def spawn(*given: Any) -> Any:
            servers.append(PlayedServer())
            return servers[-1].spawn(*given)

        monkeypatch.setattr(module, "spawn", spawn)
        monkeypatch.setattr(module, "watched", watched or wait)
        launcher = ReaderLauncher()
        try:
            await test(launcher, servers)
        finally:
            launcher.close()
            launcher.close()
            await settle()
        assert launcher.pid is None
        for server in servers:
            assert server.kills == 1
            server.socket.close()

    asyncio.run(run())


async def fork(launcher: ReaderLauncher, server: PlayedServer, niceness: int = 0, pid: int = 70) -> Reader:
    """A reader, from its order to the news of its start."""
    forking = asyncio.create_task(launcher.fork(niceness))
    await settle()
    order = server.order()
    assert isinstance(order, Fork)
    assert read_options(order.payload) == ReaderOptions(niceness)
    assert server.descriptors == 1
    await server.say(Forked(order.number, pid))
    return await forking


def test_imports_begin_before_there_is_a_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(launcher: ReaderLauncher, servers: Servers) -> None:
        launcher.begin()
        launcher.begin()
        (server,) = servers
        with pytest.raises(BlockingIOError):
            server.order()
        launcher.load(SETUP)
        order = server.order()
        assert isinstance(order, Load)
        assert read_setup(order.payload) == SETUP
        ready = asyncio.create_task(launcher.ready())
        await settle()
        assert not ready.done()
        await server.say(Loaded())
        await ready
        reader = await fork(launcher, server, 5)
        assert reader.pid == 70

    play(monkeypatch, test)


def test_a_tokenizer_that_cannot_be_used_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(launcher: ReaderLauncher, servers: Servers) -> None:
        launcher.load(SETUP)
        ready = asyncio.create_task(launcher.ready())
        await settle()
        await servers[0].say(LoadFailed(pack(SetupFailed("cut short"))))
        with pytest.raises(CheckpointError, match="cut short"):
            await ready

    play(monkeypatch, test)
    assert not caplog.records


def test_the_next_reader_is_forked_by_the_next_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(launcher: ReaderLauncher, servers: Servers) -> None:
        launcher.load(SETUP)
        launcher.begin()
        await servers[0].say(Loaded())
        assert isinstance(servers[0].order(), Load)
        first = await fork(launcher, servers[0])
        await servers[0].leave()
        assert first.ended.done()
        assert launcher.pid is None
        with pytest.raises(ProcessLost):
            await first.ask(frame(Job("chat", b"{}", 1.0)))
        forking = asyncio.create_task(launcher.fork(0))
        await settle()
        assert isinstance(servers[1].order(), Load)
        await servers[1].say(Loaded())
        assert servers[1].order() == Fork(0, pack(ReaderOptions(0)))
        await servers[1].say(Forked(0, 71))
        second = await forking
        await launcher.end(first)  # another server's child has its number now
        with pytest.raises(BlockingIOError):
            servers[1].order()
        assert not second.ended.done()

    play(monkeypatch, test)
    assert "the process that forks readers has ended; the next reader starts another" in caplog.text


@pytest.mark.parametrize("error", [Stalled("it was stopped"), Overdue("not done within 10 s")])
def test_a_server_that_hangs_is_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def watched(work: Coroutine[Any, Any, Any], pid: Callable[[], int | None], _: float) -> Any:
        assert pid() == PlayedServer.pid
        work.close()
        raise error

    async def test(launcher: ReaderLauncher, servers: Servers) -> None:
        with pytest.raises(ProcessLost, match=str(error)):
            await launcher.ready()
        assert launcher.pid is None
        assert servers[0].kills == 1

    play(monkeypatch, test, watched)
    assert f"was ended: {error}" in caplog.text


def test_a_server_that_cannot_be_started_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(11, "no more processes")

    async def test(launcher: ReaderLauncher, _: Servers) -> None:
        monkeypatch.setattr(module, "spawn", refuse)
        with pytest.raises(ProcessLost, match="cannot be started: no more processes"):
            launcher.begin()

    play(monkeypatch, test)


def test_a_reader_is_killed_and_its_status_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(launcher: ReaderLauncher, servers: Servers) -> None:
        launcher.begin()
        await servers[0].say(Loaded())
        reader = await fork(launcher, servers[0])
        ending = asyncio.create_task(launcher.end(reader))
        await settle()
        assert servers[0].order() == Kill(0)
        await servers[0].say(Killed(0), Ended(0, -11))
        assert await ending == -11

    play(monkeypatch, test)


def test_a_reader_that_leaves_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(launcher: ReaderLauncher, servers: Servers) -> None:
        launcher.begin()
        await servers[0].say(Loaded())
        reader = await fork(launcher, servers[0])
        leaving = asyncio.create_task(launcher.leave(reader))
        await settle()
        await servers[0].say(Ended(0, 0))
        await leaving
        with pytest.raises(BlockingIOError):
            servers[0].order()

    play(monkeypatch, test)


def test_a_server_that_does_not_end_readers_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(launcher: ReaderLauncher, servers: Servers) -> None:
        launcher.begin()
        await servers[0].say(Loaded())
        reader = await fork(launcher, servers[0])
        monkeypatch.setattr(module, "_END_SECONDS", 0.0)
        assert await launcher.end(reader) is None
        assert launcher.pid is None

    play(monkeypatch, test)


def test_a_reader_that_nobody_waits_for_any_more_is_killed_and_its_connection_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(launcher: ReaderLauncher, servers: Servers) -> None:
        launcher.begin()
        await servers[0].say(Loaded())
        forking = asyncio.create_task(launcher.fork(0))
        await settle()
        assert isinstance(servers[0].order(), Fork)
        (writer,) = launcher._writers.values()
        forking.cancel()
        await settle()
        assert servers[0].order() == Kill(0)
        assert writer.transport.is_closing()

    play(monkeypatch, test)


def test_connections_to_readers_that_nobody_holds_are_closed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(launcher: ReaderLauncher, servers: Servers) -> None:
        launcher.begin()
        await servers[0].say(Loaded())
        await fork(launcher, servers[0])  # its only reference
        writers = list(launcher._writers.values())
        launcher.close()
        assert [writer.transport.is_closing() for writer in writers] == [True]
        assert not launcher._writers

    play(monkeypatch, test)


def test_whoever_waits_at_the_end_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(launcher: ReaderLauncher, _: Servers) -> None:
        ready = asyncio.create_task(launcher.ready())
        await settle()
        launcher.close()
        with pytest.raises(EngineStopped, match="the process that forks readers was ended"):
            await ready

    play(monkeypatch, test)
    assert not caplog.records


class Written:
    """In place of a stream to a reader."""

    def write(self, data: bytes) -> None:
        pass

    async def drain(self) -> None:
        pass


def ask(sent: bytes) -> Any:
    """What `Reader.ask` makes of what the reader has sent."""

    async def run() -> Any:
        stream = asyncio.StreamReader()
        stream.feed_data(sent)
        stream.feed_eof()
        writer: Any = Written()
        return await Reader(2, (stream, writer), asyncio.Future(), lambda: None).ask(b"")

    return asyncio.run(run())


def test_an_answer_is_read() -> None:
    refused = Refused("no", None, None, last=False)
    assert ask(frame(refused)) == refused


@pytest.mark.parametrize(
    "sent", [b"", b"\x01", LENGTH.pack(5) + b"abc", LENGTH.pack(2**32 - 1), LENGTH.pack(1) + b"\xc1"]
)
def test_a_reader_that_sends_nonsense_is_lost(sent: bytes) -> None:
    with pytest.raises(ProcessLost):
        ask(sent)

"""The gateway's hold on the template, whose part is played over its socket."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from faasmoe.errors import CheckpointError, ProcessLost
from faasmoe.fleet import template_process
from faasmoe.fleet.template_process import TemplateProcess
from faasmoe.protocol.config import About, ServingConfig
from faasmoe.protocol.errors import failure_of
from faasmoe.protocol.messages import Start, encode, read_start
from faasmoe.util.forkserver import client
from faasmoe.util.forkserver.messages import (
    Ended,
    Fork,
    Forked,
    ForkFailed,
    Kill,
    Killed,
    Load,
    Loaded,
    LoadFailed,
)
from faasmoe.util.forkserver.order_queue import OrderQueue
from faasmoe.util.liveness import HeartbeatMonitor, ProcessState
from tests.unit.clocks import run as run_in_virtual_time
from tests.unit.util.forkserver.played import PlayedServer, settle

ABOUT = About("arch", 1, 2, 3, 40)
START = Start(ServingConfig("m", "/m"), "local", "/pool", "/folder")


def play(
    monkeypatch: pytest.MonkeyPatch, test: Callable[[TemplateProcess, PlayedServer], Awaitable[None]]
) -> None:
    async def run() -> None:
        played = PlayedServer()
        monitor = HeartbeatMonitor(read=lambda *_: ProcessState(played.stopped, runnable=False, cpu=1.0))
        monkeypatch.setattr(template_process, "spawn", played.spawn)
        process = TemplateProcess(START, monitor)
        try:
            load = played.order()
            assert isinstance(load, Load)
            assert read_start(load.payload) == START
            await test(process, played)
        finally:
            process.end(ProcessLost("the test is over"))
            played.socket.close()
        assert played.kills

    run_in_virtual_time(run())


async def fork(
    process: TemplateProcess, played: PlayedServer
) -> asyncio.Task[tuple[int, int, asyncio.Future[int]]]:
    """An orchestrator was asked for, and the order has come."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        forking = asyncio.create_task(process.fork(theirs))
        await asyncio.sleep(0)
        assert isinstance(played.order(), Fork)
    return forking


def test_orchestrators_from_their_forks_to_their_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(process: TemplateProcess, played: PlayedServer) -> None:
        await played.say(Loaded(encode(ABOUT)))
        assert await process.about == ABOUT
        forking = [await fork(process, played) for _ in range(3)]
        await played.say(Forked(1, 71), Forked(0, 70), ForkFailed(2, "no memory"))
        (first, pid, ended), (second, _, other) = await forking[0], await forking[1]
        assert (first, pid, second) == (0, 70, 1)
        with pytest.raises(ProcessLost, match="no orchestrator could be forked: no memory"):
            await forking[2]
        process.kill(first)
        process.kill(99)  # unknown
        assert played.order() == Kill(first)
        await played.say(Killed(first), Ended(first, -signal.SIGKILL))
        assert await ended == -signal.SIGKILL
        process.kill(first)  # it has ended
        played.socket.shutdown(socket.SHUT_RDWR)
        assert await other == -signal.SIGKILL  # with the template
        assert not process.running
        with pytest.raises(ProcessLost, match="has ended"):
            await process.fork(played.socket)

    play(monkeypatch, test)


def test_what_is_in_the_way_of_loading_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(process: TemplateProcess, played: PlayedServer) -> None:
        await played.say(LoadFailed(encode(failure_of(CheckpointError("cut short")))))
        with pytest.raises(CheckpointError, match="cut short"):
            await process.about
        assert not process.running

    play(monkeypatch, test)


@pytest.mark.parametrize(("what", "seconds"), [("load", 3), ("fork", 1), ("kill", 1)])
def test_one_that_is_stopped_when_something_is_wanted_of_it_is_lost(
    monkeypatch: pytest.MonkeyPatch, what: str, seconds: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(process: TemplateProcess, played: PlayedServer) -> None:
        waiting: Awaitable[object] = process.about
        if what != "load":
            await played.say(Loaded(encode(ABOUT)))
            forking = waiting = await fork(process, played)
        if what == "kill":
            await played.say(Forked(0, 70))
            number, _, waiting = await forking
            process.kill(number)
        played.stopped = True
        async with asyncio.timeout(20):
            if what == "kill":
                assert await waiting == -signal.SIGKILL
            else:
                with pytest.raises(ProcessLost, match=f"was stopped, and silent for {seconds} s"):
                    await waiting
        assert played.kills

    play(monkeypatch, test)
    assert "was stopped" in caplog.text


def test_one_that_is_stopped_when_nothing_is_wanted_of_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(process: TemplateProcess, played: PlayedServer) -> None:
        await played.say(Loaded(encode(ABOUT)))
        played.stopped = True
        await asyncio.sleep(3600)
        assert process.running

    play(monkeypatch, test)


def test_a_template_that_takes_no_orders_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "OrderQueue", partial(OrderQueue, most=10))

    async def test(process: TemplateProcess, played: PlayedServer) -> None:
        await played.say(Loaded(encode(ABOUT)))
        forking = [asyncio.create_task(process.fork(played.socket)) for _ in range(1000)]
        await settle()
        assert played.kills
        for each in forking:
            with pytest.raises(ProcessLost, match="takes no orders"):
                await each

    play(monkeypatch, test)

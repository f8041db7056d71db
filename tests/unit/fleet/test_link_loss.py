"""Orchestrators that are silent, lost, busy or talk nonsense."""

from __future__ import annotations

import asyncio

import pytest

from faasmoe.errors import EngineBusy, EngineStopped, MessageError, ProcessLost
from faasmoe.protocol.messages import (
    HEADER,
    LARGEST,
    Cancel,
    Pieces,
    Starting,
    StatsReport,
    StatsRequest,
    Submit,
    pack,
)
from faasmoe.protocol.request import Piece, ResourceUsage
from faasmoe.protocol.stats import EngineStats
from faasmoe.util.liveness import TICK, ProcessState
from tests.unit.clocks import VirtualLoop
from tests.unit.fleet.links import Played, piece, play, turn


def test_a_lost_orchestrator_fails_streams_and_questions() -> None:
    async def test(played: Played) -> None:
        (stream,) = await played.submit("a")
        asked = asyncio.create_task(played.link.submit(8, pack(Submit(8, ())), ["b"]))
        refreshed = asyncio.create_task(played.link.refresh())
        played.say(Pieces((("a", piece("x")),)))
        await turn()
        played.reader.feed_eof()
        with pytest.raises(EngineStopped, match="has ended"):
            await played.running
        played.link.fail("killed")
        played.link.fail("twice")
        assert (await anext(stream)).text == "x"
        for waiting in (anext(stream), asked):
            with pytest.raises(EngineStopped, match="killed"):
                await waiting
        await refreshed
        assert played.link.lost
        with pytest.raises(EngineStopped, match="killed"):
            await played.link.submit(9, b"", ["c"])

    play(test)


@pytest.mark.parametrize(("stopped", "seconds"), [(True, 3), (False, 9)])
def test_a_silent_orchestrator_counts_as_lost(stopped: bool, seconds: int) -> None:
    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        played.state = ProcessState(stopped, runnable=False, cpu=1.0)
        with pytest.raises(ProcessLost, match=rf"silent for {seconds} s"):
            await played.running
        assert loop.time() - begun == seconds

    play(test)


def test_an_orchestrator_that_speaks_now_and_then_is_not_lost() -> None:
    async def test(played: Played) -> None:
        for running in range(20):
            await asyncio.sleep(8)
            played.say(StatsReport(EngineStats(running=running), {}, {}))
        assert not played.running.done()

    play(test)


def test_what_came_while_the_gateway_stood_still_is_read_before_anybody_is_lost() -> None:
    """A loop that was busy, or a machine that was paused, for longer than an orchestrator may be silent."""

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        for _ in range(3):
            loop.now += 70
            loop.call_soon(played.say, StatsReport(EngineStats(running=4), {}, {}))
            await asyncio.sleep(TICK)
        assert not played.running.done()
        assert played.link.latest == EngineStats(running=4)

    play(test)


@pytest.mark.parametrize(
    "sent", [b"HTTP/1.1 200 OK", pack(StatsRequest()), pack(Starting()), HEADER.pack(1, LARGEST + 1)]
)
def test_an_orchestrator_that_talks_nonsense_is_given_up(sent: bytes) -> None:
    async def test(played: Played) -> None:
        played.reader.feed_data(sent)
        with pytest.raises(MessageError):
            await played.running

    play(test)


def test_an_orchestrator_that_takes_nothing_is_busy() -> None:
    async def test(played: Played) -> None:
        (stream,) = await played.submit("a")
        played.writer.waiting = LARGEST + 1
        with pytest.raises(EngineBusy, match="keep up"):
            await played.link.submit(2, b"", ["b"])
        await stream.aclose()  # cannot be told, and raises nothing

    play(test)


def test_what_is_cut_off_fails_at_once_and_what_it_has_used_is_still_told() -> None:
    async def test(played: Played) -> None:
        first, second = await played.submit("a", "b")
        played.say(Pieces((("a", piece("x")),)))
        await turn()
        played.link.cut("the end")
        assert [order.ids for order in played.writer.orders() if isinstance(order, Cancel)] == [
            ("a",),
            ("b",),
        ]
        assert (await anext(first)).text == "x"
        for stream in (first, second):
            with pytest.raises(EngineStopped, match="the end"):
                await anext(stream)
        last = Piece("", 1, "cancelled", used=ResourceUsage(1.0))
        played.say(Pieces((("a", last), ("b", last))))
        await turn()
        assert (first.final.result(), second.final.result()) == (last, last)
        assert not played.link.busy

    play(test)

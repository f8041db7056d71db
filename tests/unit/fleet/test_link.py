"""The link over streams that are fed by hand."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest

from faasmoe.errors import EngineBusy, EngineStopped, MessageError, ProcessLost, RequestError, ServingError
from faasmoe.fleet.link import Link
from faasmoe.fleet.stream import MOST_UNREAD, PieceStream
from faasmoe.protocol.errors import failure_of
from faasmoe.protocol.messages import (
    HEADER,
    LARGEST,
    Accepted,
    Cancel,
    Pieces,
    Refused,
    Starting,
    StatsReport,
    StatsRequest,
    Submit,
    ToGateway,
    pack,
    read_order,
)
from faasmoe.protocol.request import GenerationRequest, Piece, ResourceUsage
from faasmoe.protocol.stats import EngineStats
from faasmoe.util.liveness import TICK, HeartbeatMonitor, ProcessState
from tests.unit.clocks import VirtualLoop
from tests.unit.clocks import run as run_in_virtual_time


class Writer:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.waiting = 0
        self.transport = SimpleNamespace(get_write_buffer_size=lambda: self.waiting)

    def write(self, frame: bytes) -> None:
        self.sent.append(frame)

    def orders(self) -> list[object]:
        return [read_order(frame[HEADER.size :]) for frame in self.sent]


class Played:
    """A link, and the orchestrator's part in it."""

    def __init__(self) -> None:
        self.reader, self.writer = asyncio.StreamReader(), Writer()
        self.state = ProcessState(stopped=False, runnable=False, cpu=1.0)
        monitor = HeartbeatMonitor(read=lambda *_: self.state)
        self.link = Link(self.reader, self.writer, monitor)  # type: ignore[arg-type]
        self.link.watch(7)
        self.running = asyncio.create_task(self.link.run())

    def say(self, *messages: ToGateway) -> None:
        self.reader.feed_data(b"".join(map(pack, messages)))

    async def submit(self, *ids: str, answer: ToGateway | None = None) -> list[PieceStream]:
        requests = tuple(GenerationRequest(request_id, (1,)) for request_id in ids)
        submitted = asyncio.create_task(self.link.submit(7, pack(Submit(7, requests)), ids))
        await turn()
        self.say(answer or Accepted(7))
        return await submitted


async def turn() -> None:
    """Let all tasks go on until they wait."""
    for _ in range(20):
        await asyncio.sleep(0)


def play(test: Callable[[Played], Awaitable[None]]) -> None:
    async def run() -> None:
        played = Played()
        try:
            await test(played)
        finally:
            played.running.cancel()
            await asyncio.gather(played.running, return_exceptions=True)

    run_in_virtual_time(run())


def piece(text: str, reason: str | None = None) -> Piece:
    return Piece(text, 1, reason)


def test_pieces_go_to_those_who_asked() -> None:
    async def test(played: Played) -> None:
        first, second = await played.submit("a", "b")
        played.say(Pieces((("b", piece("y")), ("a", piece("x")), ("gone", piece("z")))))
        played.say(Pieces((("a", piece("", "stop")), ("b", piece("w", "length")))))
        assert [p.text async for p in first] == ["x", ""]
        assert [p.finish_reason async for p in second] == [None, "length"]
        await first.aclose()
        assert [type(order) for order in played.writer.orders()] == [Submit]  # nothing is left to cancel

    play(test)


def test_it_is_busy_while_a_request_is_under_way() -> None:
    async def test(played: Played) -> None:
        assert not played.link.busy
        asked = asyncio.create_task(played.submit("a", "b"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert played.link.busy
        first, second = await asked
        played.say(Pieces((("a", piece("x", "stop")),)))
        await turn()
        assert played.link.busy
        await second.aclose()
        assert played.link.busy  # what it has used is not known yet
        played.say(Pieces((("b", piece("", "cancelled")),)))
        await turn()
        assert not played.link.busy
        assert [p.text async for p in first] == ["x"]  # what has come can be read

    play(test)


def test_pieces_before_the_answer_are_kept() -> None:
    async def test(played: Played) -> None:
        played_early = asyncio.create_task(played.submit("a"))
        await asyncio.sleep(0)
        played.say(Pieces((("a", piece("early", "stop")),)))
        (stream,) = await played_early
        assert [p.text async for p in stream] == ["early"]

    play(test)


def test_a_refusal_is_raised_and_leaves_nothing() -> None:
    async def test(played: Played) -> None:
        refusal = RequestError("too long", param="prompt")
        with pytest.raises(RequestError, match="too long") as caught:
            await played.submit("a", "b", answer=Refused(7, failure_of(refusal)))
        assert caught.value.param == "prompt"
        played.say(Pieces((("a", piece("x")),)))  # nobody listens
        await turn()
        assert not played.running.done()

    play(test)


@pytest.mark.parametrize("how", ["close", "drop", "cancel"])
def test_a_stream_that_nobody_wants_is_cancelled_once(how: str) -> None:
    async def test(played: Played) -> None:
        streams = await played.submit("a")
        if how == "close":
            await streams[0].aclose()
            await streams[0].aclose()
        elif how == "cancel":
            played.link.cancel("a")
            played.link.cancel("a")
        del streams
        await turn()  # the loop forgets what it has just handed over
        gc.collect()
        assert played.writer.orders()[1:] == [Cancel(("a",))]

    play(test)


def test_who_leaves_before_the_answer_cancels() -> None:
    async def test(played: Played) -> None:
        asked = asyncio.create_task(played.link.submit(1, pack(Submit(1, ())), ["a"]))
        await turn()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert played.writer.orders()[1:] == [Cancel(("a",))]
        played.say(Accepted(1))
        await turn()
        assert not played.running.done()

    play(test)


@pytest.mark.parametrize("how", ["read", "cancelled", "dropped", "failed"])
def test_the_last_piece_comes_however_a_request_ends(how: str) -> None:
    async def test(played: Played) -> None:
        (stream,) = await played.submit("a")
        final = stream.final
        if how in ("cancelled", "dropped"):
            await stream.aclose()
        if how == "dropped":
            del stream
            gc.collect()
        played.say(Pieces((("a", piece("x")),)))
        await turn()
        assert not final.done()
        last = Piece(
            "y",
            2,
            None if how == "failed" else how,
            error="no" if how == "failed" else None,
            used=ResourceUsage(3),
        )
        played.say(Pieces((("a", last),)))
        assert await final == last
        if how == "read":
            assert [p.text async for p in stream] == ["x", "y"]
        elif how == "cancelled":
            assert [p async for p in stream] == []

    play(test)


def test_there_is_no_last_piece_of_what_was_refused_or_lost() -> None:
    async def test(played: Played) -> None:
        inboxes = played.link._inboxes
        (running,) = await played.submit("running")
        (cancelled,) = await played.submit("cancelled")
        await cancelled.aclose()
        asked = asyncio.create_task(played.link.submit(8, pack(Submit(8, ())), ["left"]))
        await turn()
        refused = inboxes["left"]
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        played.say(Refused(8, failure_of(RequestError("too long"))))
        assert await refused.final is None
        assert list(inboxes) == ["running", "cancelled"]
        played.link.fail("killed")
        assert await running.final is None
        assert await cancelled.final is None
        assert not inboxes

    play(test)


def test_a_slow_reader_gets_what_waits_and_then_an_error() -> None:
    async def test(played: Played) -> None:
        slow, quick = await played.submit("slow", "quick")
        for _ in range(MOST_UNREAD + 3):
            played.say(Pieces((("slow", piece("x")),)))
        played.say(Pieces((("quick", piece("y", "stop")),)))
        assert [p.text async for p in quick] == ["y"]
        assert Cancel(("slow",)) in played.writer.orders()
        got = [await anext(slow) for _ in range(MOST_UNREAD)]
        with pytest.raises(ServingError, match="reads too slowly"):
            await anext(slow)
        assert {p.text for p in got} == {"x"}
        last = Piece("", 9, "cancelled", used=ResourceUsage(3))
        played.say(Pieces((("slow", last),)))
        assert await slow.final == last

    play(test)


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
            played.say(StatsReport(EngineStats(running=running), {}))
        assert not played.running.done()

    play(test)


def test_what_came_while_the_gateway_stood_still_is_read_before_anybody_is_lost() -> None:
    """A loop that was busy, or a machine that was paused, for longer than an orchestrator may be silent."""

    async def test(played: Played) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        for _ in range(3):
            loop.now += 70
            loop.call_soon(played.say, StatsReport(EngineStats(running=4), {}))
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


def test_figures_are_asked_for_once_for_all_who_wait() -> None:
    async def test(played: Played) -> None:
        asked = [asyncio.create_task(played.link.refresh()) for _ in range(3)]
        await turn()
        seen: list[dict[str, float]] = []
        played.link.on_busy = seen.append
        played.say(StatsReport(EngineStats(running=4), {"a": 1.5}))
        await asyncio.gather(*asked)
        assert played.link.latest == EngineStats(running=4)
        assert played.writer.orders() == [StatsRequest()]
        assert seen == [{"a": 1.5}]

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

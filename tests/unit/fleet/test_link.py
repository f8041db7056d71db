"""The link over streams that are fed by hand."""

from __future__ import annotations

import asyncio
import gc

import pytest

from faasmoe.errors import RequestError, ServingError
from faasmoe.fleet.stream import MOST_UNREAD
from faasmoe.protocol.errors import failure_of
from faasmoe.protocol.messages import (
    Accepted,
    Cancel,
    Pieces,
    Refused,
    StatsReport,
    StatsRequest,
    Submit,
    pack,
)
from faasmoe.protocol.request import Piece, ResourceUsage
from faasmoe.protocol.stats import EngineStats
from tests.unit.fleet.links import Played, piece, play, turn


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


def test_figures_are_asked_for_once_for_all_who_wait() -> None:
    async def test(played: Played) -> None:
        asked = [asyncio.create_task(played.link.refresh()) for _ in range(3)]
        await turn()
        seen: list[StatsReport] = []
        played.link.on_report = seen.append
        played.say(StatsReport(EngineStats(running=4), {"a": 1.5}, {"a": 3}))
        await asyncio.gather(*asked)
        assert played.link.latest == EngineStats(running=4)
        assert played.writer.orders() == [StatsRequest()]
        assert [(report.busy, report.served) for report in seen] == [({"a": 1.5}, {"a": 3})]

    play(test)

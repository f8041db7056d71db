"""Batches, as a node receives, runs and answers them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from faasmoe.errors import FunctionError
from faasmoe.platforms.cluster.agent.batches import Batches
from faasmoe.platforms.cluster.protocol import call_batch, messages
from faasmoe.platforms.cluster.protocol.call_batch import BatchCall, CallBatch
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.frame import FrameKind, Outgoing, framed
from faasmoe.platforms.cluster.protocol.messages import Beat, Failure
from tests.unit.platforms.cluster.ends import Echoes, serve


@pytest.fixture
def echoes() -> Echoes:
    return Echoes("a:")


@pytest.fixture
def draining() -> list[bool]:
    return [False]


@pytest.fixture
def ends(echoes: Echoes, draining: list[bool]) -> Iterator[tuple[Connection, Batches]]:
    connection, batches = serve(echoes, lambda: draining[0])
    yield connection, batches
    connection.close()
    batches.thread.join()


def soon() -> float:
    return time.monotonic() + 10


def ask(connection: Connection, batch: CallBatch, *body: bytes, number: int = 1) -> list[bytes]:
    connection.push(Outgoing(framed(FrameKind.BATCH, messages.encode(batch), body, number)), soon())
    frame = connection.frame(soon())
    assert frame.kind == FrameKind.REPLIES
    replies = call_batch.read_replies(frame.head, frame.body, len(batch.calls))
    assert (frame.number, set(replies.busy), set(replies.memory)) == (number, {0.5}, {7})
    room = memoryview(bytearray(frame.body))
    connection.fill([room], soon())
    ends = [sum(replies.lengths[: i + 1]) for i in range(len(replies.lengths))]
    return [bytes(room[end - length : end]) for end, length in zip(ends, replies.lengths, strict=True)]


def refused(connection: Connection, batch: CallBatch, *body: bytes) -> Failure:
    connection.push(Outgoing(framed(FrameKind.BATCH, messages.encode(batch), body)), soon())
    answer = connection.answered(soon())
    assert isinstance(answer, Failure)
    return answer


def test_a_batch_runs_as_one_and_is_answered_by_one_frame(
    ends: tuple[Connection, Batches], echoes: Echoes
) -> None:
    connection, batches = ends
    for size in (1, 100_000, 10, 1):
        batch = CallBatch(9.0, [BatchCall("f", size, 0, 1.0), BatchCall("g", 2, 0, 1.0)])
        assert ask(connection, batch, b"x" * size, b"yy", number=size) == [b"a:" + b"x" * size, b"a:yy"]
    assert echoes.batches == [["f", "g"]] * 4
    traffic = batches.traffic
    assert (traffic.calls, traffic.frames) == (8, 4)
    assert 100_000 < traffic.received < 101_000
    assert 100_000 < traffic.sent < 101_000


def test_rows_are_put_where_they_lie_in_the_shared_buffer(ends: tuple[Connection, Batches]) -> None:
    batch = CallBatch(9.0, [BatchCall("f", 1, 0, 1.0), BatchCall("g", 1, 0, 1.0)], 40, 4, [2, 2, 9, 1])
    assert ask(ends[0], batch, b"3", b"9", b"row2", b"row3", b"row9") == [b"a:row3", b"a:row9"]


def test_an_error_of_a_function_is_the_answer(ends: tuple[Connection, Batches], echoes: Echoes) -> None:
    echoes.error = FunctionError("f", "ValueError", "no")
    failure = refused(ends[0], CallBatch(9.0, [BatchCall("f", 1, 0, 1.0)]), b"x")
    assert str(failure.error_of("nodes", "a")) == "function f failed with ValueError: no"
    echoes.error = None
    assert ask(ends[0], CallBatch(9.0, [BatchCall("f", 1, 0, 1.0)]), b"x") == [b"a:x"]


def test_a_node_that_drains_runs_nothing(
    ends: tuple[Connection, Batches], echoes: Echoes, draining: list[bool]
) -> None:
    draining[0] = True
    assert refused(ends[0], CallBatch(9.0, [BatchCall("f", 1, 0, 1.0)]), b"x").kind == "draining"
    assert echoes.batches == []


@pytest.mark.parametrize(
    "parts",
    [
        framed(FrameKind.MESSAGE, messages.encode(Beat())),
        framed(FrameKind.BATCH, b"\xff"),
        framed(FrameKind.BATCH, messages.encode(CallBatch(9.0, [BatchCall("f", 1, 0, 1.0)])), [b"xx"]),
    ],
)
def test_what_is_no_batch_ends_the_connection(ends: tuple[Connection, Batches], parts: list[bytes]) -> None:
    connection, batches = ends
    connection.push(Outgoing(parts), soon())
    batches.thread.join()
    assert batches.lost

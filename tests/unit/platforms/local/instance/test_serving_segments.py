"""Descriptors beside a call, and calls whose bytes lie in shared memory."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.instance import connection, serving
from faasmoe.platforms.local.protocol import frame
from faasmoe.platforms.local.protocol.frame import HEADER, INLINE, MAX_INLINE, Header, Status
from faasmoe.platforms.local.protocol.segment import Segment
from faasmoe.platforms.local.protocol.wire import Lost
from tests.instruction_sets import on_each
from tests.unit.platforms.local.instance.callers import Served, served
from tests.unit.platforms.local.protocol.frames import EMPTY, fresh

instruction_set = on_each(serving, connection)
SIZE = 1 << 20  # of the smallest segment
LARGE = MAX_INLINE + 1


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Ends of a pipe that does not wait; the writing end is closed by the caller."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield reading, writing
    finally:
        os.close(reading)


@contextmanager
def segments() -> Iterator[tuple[Segment, Segment]]:
    with closing(Segment(1, writable=False)) as requests, closing(Segment(1, writable=True)) as replies:
        yield requests, replies


@contextmanager
def shared() -> Iterator[tuple[Served, Segment, Segment]]:
    """A connection whose instance knows segments."""
    with served() as ends, segments() as (requests, replies):
        bring(ends, requests, replies)
        assert ends.call() == (b"", None)
        yield ends, requests, replies


def bring(ends: Served, requests: Segment, replies: Segment) -> None:
    frame.send_call(ends.caller, frame.pack_call(EMPTY, segments=True), (), [requests.fd, replies.fd])


def refused(ends: Served, header: Header) -> None:
    ends.caller.sendall(frame.pack_call(header))
    with pytest.raises(Lost, match="shared memory that is not there"):
        ends.server.next_call()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("announced", [True, False])
def test_descriptors_that_are_no_segments_are_refused_and_closed(count: int, announced: bool) -> None:
    with served() as ends, pipe() as (reading, writing):
        frame.send_call(ends.caller, frame.pack_call(EMPTY, announced), (), [writing] * count)
        os.close(writing)
        error = ValueError if announced and count == 2 else Lost
        with pytest.raises(error, match="not a segment" if error is ValueError else "descriptors"):
            ends.server.next_call()
        assert os.read(reading, 1) == b""


def test_announced_descriptors_that_do_not_come_are_missed() -> None:
    with served() as ends:
        ends.caller.sendall(frame.pack_call(EMPTY, segments=True))
        with pytest.raises(Lost, match="descriptors"):
            ends.server.next_call()


@given(st.integers(1, HEADER + 9))
def test_descriptors_of_a_call_cut_short_are_closed(cut: int) -> None:
    whole = frame.pack_call(EMPTY._replace(payload_length=10), segments=True) + bytes(10)
    with served() as ends, pipe() as (reading, writing):
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing] * 2))
        ends.caller.sendmsg([whole[:cut]], [rights])
        os.close(writing)
        ends.caller.close()
        with pytest.raises(Lost):
            ends.server.next_call()
        assert os.read(reading, 1) == b""


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_what_lies_in_segments_is_found(payload: bytes, rows: bytes) -> None:
    with shared() as (ends, requests, _):
        places = (*requests.write([payload]), *requests.write([rows]))
        ends.caller.sendall(frame.pack_call(Header(*places, 0, 0)))
        assert ends.call() == (payload, rows or None)


def test_a_large_reply_is_stored_where_the_caller_reads_it() -> None:
    with shared() as (ends, _, replies):
        at = [replies.place(LARGE) for _ in range(2)][1]
        for make in (lambda room: room(LARGE), lambda _: bytes(LARGE)):  # in its place at once, or copied there
            ends.caller.sendall(frame.pack_call(EMPTY._replace(reply_at=at, reply_length=LARGE)))
            assert ends.server.next_call()
            ends.server.call()
            reply = make(ends.server.reserve)
            if isinstance(reply, memoryview):
                reply[:] = b"x" * LARGE
            ends.server.finish(*ends.server.stored(reply))
            answer, end = frame.receive_reply(ends.caller, fresh())
            assert (answer.status, answer.length, end) == (Status.STORED, LARGE, HEADER)
            assert bytes(replies.view[at : at + LARGE]) == bytes(reply)


def test_a_reply_that_was_not_foreseen_is_an_error_of_the_function() -> None:
    with served() as ends:
        ends.caller.sendall(frame.pack_call(EMPTY))
        assert ends.server.next_call()
        ends.server.call()
        room = ends.server.reserve(LARGE)
        with pytest.raises(ValueError, match=f"a reply of {LARGE} bytes, but the caller foresaw {MAX_INLINE}"):
            ends.server.stored(room)


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**64 - 1))
def test_places_outside_of_a_segment_are_refused(at: int, length: int) -> None:
    inside = at % 64 == 0 and at + length <= SIZE
    for header in (
        Header(at, length, 0, 0, 0, 0),
        EMPTY._replace(shared_at=at, shared_length=length),
        EMPTY._replace(reply_at=at, reply_length=length),
    ):
        if inside or header.payload_at == INLINE == at:
            continue
        with shared() as (ends, _, _):
            refused(ends, header)


@pytest.mark.parametrize(("at", "length"), [(0, SIZE), (64, SIZE - 64), (SIZE - 64, 64), (SIZE, 0)])
def test_places_up_to_the_end_of_a_segment_are_taken(at: int, length: int) -> None:
    with shared() as (ends, _, _):
        ends.caller.sendall(frame.pack_call(Header(at, length, 0, SIZE, 0, SIZE)))
        assert tuple(map(len, ends.call())) == (length, SIZE)  # type: ignore[arg-type]


@pytest.mark.parametrize(("at", "length"), [(0, SIZE + 1), (64, SIZE), (SIZE, 1), (1, 1), (SIZE + 64, 0)])
def test_places_just_outside_of_a_segment_are_refused(at: int, length: int) -> None:
    with shared() as (ends, _, _):
        refused(ends, Header(at, length, 0, 0, 0, 0))


def test_other_segments_take_the_place_of_those_before() -> None:
    with shared() as (ends, _, _), segments() as (requests, replies):
        requests.write([b"other"])
        frame.send_call(
            ends.caller,
            frame.pack_call(Header(0, 5, 0, 0, 0, 0), segments=True),
            (),
            [requests.fd, replies.fd],
        )
        assert ends.call() == (b"other", None)


def test_after_segments_that_are_none_nothing_of_the_old_ones_is_left() -> None:
    with shared() as (ends, requests, _), pipe() as (_, writing):
        frame.send_call(
            ends.caller, frame.pack_call(Header(0, 5, 0, 0, 0, 0), segments=True), (), [requests.fd, writing]
        )
        os.close(writing)
        with pytest.raises(ValueError, match="not a segment"):
            ends.server.next_call()
        with pytest.raises(Lost, match="shared memory that is not there"):
            ends.server.next_call()

from __future__ import annotations

import os
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.protocol import frame
from faasmoe.platforms.local.protocol.frame import BUFFER, HEADER, INLINE, MAX_INLINE, Header, ReplyHeader, Status
from faasmoe.platforms.local.protocol.wire import Lost
from tests.unit.platforms.local.protocol.frames import (
    EMPTY,
    call_after,
    fresh,
    pair,
    received,
    reply_after,
    reply_bytes,
)

NUMBER = st.integers(0, 2**64 - 1)


class Pieces:
    """A socket whose bytes arrive in pieces."""

    def __init__(self, data: bytes, cuts: list[int]) -> None:
        edges = [0, *sorted(cut for cut in set(cuts) if 0 < cut < len(data)), len(data)]
        self._pieces = [data[a:b] for a, b in pairwise(edges)]

    def recv_into(self, buffer: memoryview) -> int:
        piece = self._pieces.pop(0) if self._pieces else b""
        buffer[: len(piece)] = piece
        return len(piece)

    def recvmsg_into(self, buffers: list[memoryview], *_: int) -> tuple[int, list[object], int, None]:
        return self.recv_into(buffers[0]), [], 0, None


@st.composite
def calls(draw: st.DrawFn) -> tuple[Header, list[bytes]]:
    parts = draw(st.lists(st.binary(max_size=300), max_size=4))
    rest = [draw(NUMBER) for _ in range(4)]
    if draw(st.booleans()):
        return Header(INLINE, sum(map(len, parts)), *rest), parts
    return Header(draw(st.integers(0, INLINE - 1)), draw(NUMBER), *rest), []


@given(calls())
def test_call_round_trip(call: tuple[Header, list[bytes]]) -> None:
    header, parts = call
    with pair() as (ours, theirs):
        sent = frame.send_call(theirs, frame.pack_call(header), parts)
        assert sent == HEADER + sum(map(len, parts))
        again, inline, fds = received(ours)
        assert (again, bytes(inline), fds) == (header, b"".join(parts), [])


@given(st.sampled_from(Status), st.booleans(), st.lists(st.binary(max_size=300), max_size=4), NUMBER, NUMBER)
def test_reply_round_trip(status: Status, crowded: bool, parts: list[bytes], stored: int, busy: int) -> None:
    if status == Status.STORED:
        parts, length = [], stored
    else:
        length = sum(map(len, parts))
    with pair() as (ours, theirs):
        sent = ReplyHeader(status, crowded, length, 4711, busy)
        frame.send_reply(theirs, sent, parts)
        buffer = fresh()
        again, end = frame.receive_reply(ours, buffer)
        assert again == sent
        assert bytes(buffer[HEADER:end]) == b"".join(parts)


def test_the_largest_frames_go_through_an_empty_socket() -> None:
    payload = os.urandom(MAX_INLINE)
    with pair() as (ours, theirs):
        theirs.setblocking(False)
        frame.send_call(theirs, frame.pack_call(EMPTY._replace(payload_length=MAX_INLINE)), [payload])
        _, inline, _ = received(ours)
        assert inline == payload
        frame.send_reply(theirs, ReplyHeader(Status.OK, length=MAX_INLINE), [payload])
        buffer = fresh()
        assert frame.receive_reply(ours, buffer)[-1] == BUFFER
        assert buffer[HEADER:] == payload


def test_one_connection_carries_calls_one_after_the_other() -> None:
    with pair() as (ours, theirs):
        buffer = fresh()
        for payload in (b"first and longer", b"", b"third"):
            frame.send_call(theirs, frame.pack_call(EMPTY._replace(payload_length=len(payload))), [payload])
            assert received(ours, buffer)[1] == payload


@given(calls(), st.lists(st.integers(1, 400), max_size=6))
def test_a_call_may_arrive_in_pieces(call: tuple[Header, list[bytes]], cuts: list[int]) -> None:
    header, parts = call
    data = frame.pack_call(header) + b"".join(parts)
    again, inline, fds = received(Pieces(data, cuts))
    assert (again, bytes(inline), fds) == (header, b"".join(parts), [])


@given(st.binary(max_size=300), st.lists(st.integers(1, 400), max_size=6))
def test_a_reply_may_arrive_in_pieces(text: bytes, cuts: list[int]) -> None:
    data = reply_bytes(Status.FAILED, 1, len(text), text)
    buffer = fresh()
    answer, end = frame.receive_reply(Pieces(data, cuts), buffer)
    assert answer == ReplyHeader(Status.FAILED, 1, len(text))
    assert buffer[HEADER:end] == text


@given(st.binary(min_size=1, max_size=300))
def test_noise_is_neither_call_nor_reply(noise: bytes) -> None:
    with pytest.raises(Lost):
        call_after(noise)
    with pytest.raises(Lost):
        reply_after(noise)


def test_the_end_of_a_connection_is_no_call_but_a_lost_reply() -> None:
    with pair() as (ours, theirs):
        theirs.close()
        assert frame.receive_call(ours, fresh()) is None
    with pytest.raises(Lost, match="closed"):
        reply_after(b"")


@given(st.binary(max_size=60), st.binary(max_size=100))
def test_noise_behind_the_right_beginning_is_understood_or_lost(fields: bytes, rest: bytes) -> None:
    version = frame.VERSION.to_bytes(2, "little")
    for magic, receive in ((b"FMcq", call_after), (b"FMca", reply_after)):
        data = magic + version + fields + rest
        try:
            *_, inline, last = receive(data)
        except Lost:
            continue
        inline = last if receive is reply_after else inline
        assert len(data) == HEADER + len(inline)


@given(calls(), st.data())
def test_a_call_cut_short_is_lost(call: tuple[Header, list[bytes]], data: st.DataObject) -> None:
    header, parts = call
    whole = frame.pack_call(header) + b"".join(parts)
    with pytest.raises(Lost, match="closed"):
        call_after(whole[: data.draw(st.integers(1, len(whole) - 1))])


@given(st.binary(max_size=200), st.data())
def test_a_reply_cut_short_is_lost(text: bytes, data: st.DataObject) -> None:
    whole = reply_bytes(Status.OK, 0, len(text), text)
    with pytest.raises(Lost, match="closed"):
        reply_after(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(calls(), st.binary(min_size=1, max_size=50))
def test_bytes_behind_a_call_are_refused(call: tuple[Header, list[bytes]], more: bytes) -> None:
    header, parts = call
    with pytest.raises(Lost, match="after the end"):
        call_after(frame.pack_call(header) + b"".join(parts) + more)


@given(st.binary(max_size=50), st.binary(min_size=1, max_size=50))
def test_bytes_behind_a_reply_are_refused(text: bytes, more: bytes) -> None:
    with pytest.raises(Lost, match="after the end"):
        reply_after(reply_bytes(Status.OK, 0, len(text), text + more))
    with pytest.raises(Lost, match="after the end"):
        reply_after(reply_bytes(Status.STORED, 0, len(text), more))


@given(st.integers(MAX_INLINE + 1, 2**64 - 1))
def test_announced_lengths_beyond_the_limit_are_refused(length: int) -> None:
    with pytest.raises(Lost, match=f"{length} bytes were announced"):
        call_after(frame.pack_call(EMPTY._replace(payload_length=length)))
    with pytest.raises(Lost, match=f"{length} bytes were announced"):
        reply_after(reply_bytes(Status.OK, 0, length))


@pytest.mark.parametrize("head", [
    struct.pack("<4sHHQQQQQQ8x", b"FMca", 1, 0, *EMPTY),
    struct.pack("<4sHHQQQQQQ8x", b"FMcq", 2, 0, *EMPTY),
    struct.pack("<4sHHQQQQQQ8x", b"FMcq", 1, 2, *EMPTY),
])  # fmt: skip
def test_another_kind_of_call_is_refused(head: bytes) -> None:
    with pytest.raises(Lost, match="not a call of version 1"):
        call_after(head)


@pytest.mark.parametrize("head", [
    struct.pack("<4sHBBQ48x", b"FMcq", 1, 0, 0, 0),
    struct.pack("<4sHBBQ48x", b"FMca", 2, 0, 0, 0),
    struct.pack("<4sHBBQ48x", b"FMca", 1, len(Status), 0, 0),
    struct.pack("<4sHBBQ48x", b"FMca", 1, 0, 2, 0),
])  # fmt: skip
def test_another_kind_of_reply_is_refused(head: bytes) -> None:
    with pytest.raises(Lost, match="not a reply of version 1"):
        reply_after(head)


def test_sending_to_a_closed_connection_is_lost() -> None:
    with pair() as (ours, theirs):
        ours.close()
        with pytest.raises(Lost):
            frame.send_call(theirs, frame.pack_call(EMPTY), ())
        with pytest.raises(Lost):
            frame.send_reply(theirs, ReplyHeader(Status.OK), ())


def test_a_reply_that_did_not_come_yet_is_not_lost_but_half_a_one_is() -> None:
    with pair() as (ours, theirs):
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            frame.receive_reply(ours, fresh())
        theirs.sendall(reply_bytes(Status.OK, 0, 10, b"12345"))
        with pytest.raises(Lost, match="stopped in the middle"):
            frame.receive_reply(ours, fresh())

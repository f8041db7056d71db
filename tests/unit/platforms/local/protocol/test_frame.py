from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.protocol import frame
from faasmoe.platforms.local.protocol.frame import HEADER, MAX_INLINE, Header, ReplyHeader, Status
from faasmoe.platforms.local.protocol.wire import Lost
from tests.unit.platforms.local.protocol.frames import (
    EMPTY,
    fresh,
    pair,
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


@given(st.builds(Header, *[NUMBER] * 6), st.booleans())
def test_a_header_is_read_as_it_was_packed(header: Header, segments: bool) -> None:
    packed = frame.pack_call(header, segments)
    assert len(packed) == HEADER
    assert frame.unpack_call(packed) == header


@given(st.sampled_from(Status), st.booleans(), st.binary(max_size=900), NUMBER)
def test_a_reply_is_received(status: Status, crowded: bool, text: bytes, stored: int) -> None:
    if status == Status.STORED:
        text, length = b"", stored
    else:
        length = len(text)
    assert reply_after(reply_bytes(status, crowded, length, text)) == (status, crowded, length, text)


@given(st.binary(max_size=300), st.lists(st.integers(1, 400), max_size=6))
def test_a_reply_may_arrive_in_pieces(text: bytes, cuts: list[int]) -> None:
    data = reply_bytes(Status.FAILED, 1, len(text), text)
    buffer = fresh()
    answer, end = frame.receive_reply(Pieces(data, cuts), buffer)
    assert answer == ReplyHeader(Status.FAILED, 1, len(text))
    assert buffer[HEADER:end] == text


@given(st.binary(min_size=1, max_size=300))
def test_noise_is_no_reply(noise: bytes) -> None:
    with pytest.raises(Lost):
        reply_after(noise)


def test_the_end_of_a_connection_is_a_lost_reply() -> None:
    with pytest.raises(Lost, match="closed"):
        reply_after(b"")


@given(st.binary(max_size=60), st.binary(max_size=100))
def test_noise_behind_the_right_beginning_is_understood_or_lost(fields: bytes, rest: bytes) -> None:
    data = b"FMca" + frame.VERSION.to_bytes(2, "little") + fields + rest
    try:
        *_, inline = reply_after(data)
    except Lost:
        return
    assert len(data) == HEADER + len(inline)


@given(st.binary(max_size=200), st.data())
def test_a_reply_cut_short_is_lost(text: bytes, data: st.DataObject) -> None:
    whole = reply_bytes(Status.OK, 0, len(text), text)
    with pytest.raises(Lost, match="closed"):
        reply_after(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=50), st.binary(min_size=1, max_size=50))
def test_bytes_behind_a_reply_are_refused(text: bytes, more: bytes) -> None:
    with pytest.raises(Lost, match="after the end"):
        reply_after(reply_bytes(Status.OK, 0, len(text), text + more))
    with pytest.raises(Lost, match="after the end"):
        reply_after(reply_bytes(Status.STORED, 0, len(text), more))


@given(st.integers(MAX_INLINE + 1, 2**64 - 1))
def test_announced_lengths_beyond_the_limit_are_refused(length: int) -> None:
    with pytest.raises(Lost, match=f"{length} bytes were announced"):
        reply_after(reply_bytes(Status.OK, 0, length))


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


def test_a_reply_that_did_not_come_yet_is_not_lost_but_half_a_one_is() -> None:
    with pair() as (ours, theirs):
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            frame.receive_reply(ours, fresh())
        theirs.sendall(reply_bytes(Status.OK, 0, 10, b"12345"))
        with pytest.raises(Lost, match="stopped in the middle"):
            frame.receive_reply(ours, fresh())

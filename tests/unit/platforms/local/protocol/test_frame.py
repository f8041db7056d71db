from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.protocol import frame
from faasmoe.platforms.local.protocol.frame import BUFFER, HEADER, INLINE, MAX_INLINE, Header, ReplyHeader, Status
from faasmoe.platforms.local.protocol.wire import Lost

NUMBER = st.integers(0, 2**64 - 1)
EMPTY = Header(INLINE, 0, 0, 0, 0, 0)


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Ends of a pipe that does not wait; the writing end is closed by the caller."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield reading, writing
    finally:
        os.close(reading)


def fresh() -> memoryview:
    return memoryview(bytearray(BUFFER))


def received(sock: socket.socket, buffer: memoryview | None = None) -> tuple[Header, memoryview, list[int]]:
    """A call that comes."""
    call = frame.receive_call(sock, fresh() if buffer is None else buffer)
    assert call is not None
    return call


def call_after(data: bytes) -> tuple[Header, bytes, list[int]]:
    """What is received when the other side sends `data` and closes."""
    with pair() as (ours, theirs):
        theirs.sendall(data)
        theirs.close()
        header, inline, fds = received(ours)
        return header, bytes(inline), fds


def reply_after(data: bytes) -> tuple[int, int, int, bytes]:
    with pair() as (ours, theirs):
        theirs.sendall(data)
        theirs.close()
        buffer = fresh()
        answer, end = frame.receive_reply(ours, buffer)
        return *answer[:3], bytes(buffer[HEADER:end])


def reply_bytes(status: int, crowded: int, length: int, inline: bytes = b"") -> bytes:
    return struct.pack("<4sHBBQ48x", b"FMca", frame.VERSION, status, crowded, length) + inline


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


def test_two_descriptors_arrive_and_can_be_used() -> None:
    with pair() as (ours, theirs), pipe() as (reading, writing):
        frame.send_call(theirs, frame.pack_call(EMPTY, segments=True), (), [writing, reading])
        os.close(writing)
        _, inline, fds = received(ours)
        assert len(inline) == 0
        assert len(fds) == 2
        os.write(fds[0], b"through both")
        assert os.read(fds[1], 100) == b"through both"
        frame.close_all(fds)
        assert os.read(reading, 1) == b""  # nobody has the writing end any more


@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("segments", [True, False])
def test_another_number_of_descriptors_is_refused_and_they_are_closed(count: int, segments: bool) -> None:
    with pair() as (ours, theirs), pipe() as (reading, writing):
        frame.send_call(theirs, frame.pack_call(EMPTY, segments), (), [writing] * count)
        os.close(writing)
        with pytest.raises(Lost, match="descriptors"):
            frame.receive_call(ours, fresh())
        assert os.read(reading, 1) == b""


def test_two_descriptors_that_nobody_announced_are_closed() -> None:
    with pair() as (ours, theirs), pipe() as (reading, writing):
        frame.send_call(theirs, frame.pack_call(EMPTY), (), [writing] * 2)
        os.close(writing)
        with pytest.raises(Lost, match="2 descriptors came with flags 0"):
            frame.receive_call(ours, fresh())
        assert os.read(reading, 1) == b""


def test_announced_descriptors_that_do_not_come_are_missed() -> None:
    with pytest.raises(Lost, match="0 descriptors came with flags 1"):
        call_after(frame.pack_call(EMPTY, segments=True))


@given(st.integers(1, HEADER + 9))
def test_descriptors_of_a_call_cut_short_are_closed(cut: int) -> None:
    whole = frame.pack_call(EMPTY._replace(payload_length=10), segments=True) + bytes(10)
    with pair() as (ours, theirs), pipe() as (reading, writing):
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing] * 2))
        theirs.sendmsg([whole[:cut]], [rights])
        os.close(writing)
        theirs.close()
        with pytest.raises(Lost):
            frame.receive_call(ours, fresh())
        assert os.read(reading, 1) == b""


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


def test_only_descriptors_are_taken_from_what_comes_beside_a_frame() -> None:
    rights = struct.pack("3i", 5, 6, 7)
    ancillary = [
        (socket.SOL_SOCKET, socket.SCM_RIGHTS, rights[:8]),
        (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, rights),
        (socket.IPPROTO_IP, socket.SCM_RIGHTS, rights),
        (socket.SOL_SOCKET, socket.SCM_RIGHTS, rights[8:] + b"\0\0"),
    ]
    assert frame.descriptors(ancillary) == [5, 6, 7]
    assert frame.descriptors([]) == []

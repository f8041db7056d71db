"""Frames: whatever pieces a stream comes in, the same frames are read from it."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.cluster.protocol.frame import (
    HEADER,
    MOST_HEAD,
    WINDOW,
    FrameKind,
    FrameReader,
    LinkRefused,
    Outgoing,
    framed,
)
from faasmoe.platforms.local.protocol.wire import Lost

HEADER_FORM = "<4sHHIIQ"


class Pieces:
    """A socket that does not block, and hands out a stream in pieces of given sizes."""

    def __init__(self, stream: bytes, sizes: Sequence[int]) -> None:
        self.stream, self.sizes = memoryview(stream), list(sizes)
        self.dry = False

    def recv_into(self, room: memoryview) -> int:
        return self.recvmsg_into([room])[0]

    def recvmsg_into(self, rooms: Sequence[memoryview]) -> tuple[int]:
        self.dry = not self.dry
        if self.dry:
            raise BlockingIOError
        left = self.sizes.pop(0) if self.sizes else len(self.stream)
        got = 0
        for room in rooms:
            taken = min(left, len(room), len(self.stream))
            room[:taken] = self.stream[:taken]
            self.stream, left, got = self.stream[taken:], left - taken, got + taken
        return (got,)


class Sink:
    """A socket that takes what it is sent in pieces of given sizes."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes, self.stream = list(sizes), b""
        self.full = False

    def sendmsg(self, parts: Sequence[memoryview]) -> int:
        self.full = not self.full
        if self.full:
            raise BlockingIOError
        taken = b"".join(parts)[: self.sizes.pop(0) if self.sizes else None]
        self.stream += taken
        return len(taken)


def read(sock: object, cuts: Sequence[int] = ()) -> Iterator[tuple[int, bytes, bytes, int]]:
    """All frames of a stream. Bodies are received into rooms cut as given."""
    reader = FrameReader()
    while True:
        while (frame := reader.head(sock)) is None:
            pass
        kind, head, body = frame.kind, bytes(frame.head), memoryview(bytearray(frame.body))
        edges = sorted({0, *(min(cut, len(body)) for cut in cuts), len(body)})
        reader.into([body[a:b] for a, b in itertools.pairwise(edges)])
        while not reader.fill(sock):
            pass
        yield kind, head, bytes(body), frame.number


FRAMES = st.lists(
    st.tuples(
        st.sampled_from(FrameKind),
        st.binary(max_size=200) | st.integers(0, 3).map(lambda n: bytes([n]) * (n * WINDOW)),
        st.lists(st.binary(max_size=100) | st.integers(0, 2).map(lambda n: bytes([n]) * (n * WINDOW)), max_size=3),
    ),
    min_size=1,
    max_size=4,
)
SIZES = st.lists(st.integers(1, 100) | st.integers(1, 2 * WINDOW), max_size=30)


@given(FRAMES, SIZES, SIZES, st.lists(st.integers(0, 300), max_size=4))
def test_any_split_of_a_stream_gives_the_same_frames(
    frames: list[tuple[FrameKind, bytes, list[bytes]]], sent: list[int], received: list[int], cuts: list[int]
) -> None:
    sink = Sink(sent)
    for number, (kind, head, body) in enumerate(frames):
        outgoing = Outgoing(framed(kind, head, body, number))
        while not outgoing.flush(sink):
            pass
    got = read(Pieces(sink.stream, received), cuts)
    assert [next(got) for _ in frames] == [
        (kind, head, b"".join(body), number) for number, (kind, head, body) in enumerate(frames)
    ]
    with pytest.raises(Lost, match="closed by the other side"):
        next(got)


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ((b"HTTP", 2, 1, 0, 0, 0), "does not speak the protocol"),
        ((b"FMcl", 2, 0, 0, 0, 0), "unknown kind 0"),
        ((b"FMcl", 2, 5, 0, 0, 0), "unknown kind 5"),
        ((b"FMcl", 2, 1, MOST_HEAD + 1, 0, 0), "are the limits"),
        ((b"FMcl", 2, 1, 0, 0, 1 << 33), "are the limits"),
    ],
)
def test_what_is_no_frame_ends_the_connection(header: tuple[object, ...], error: str) -> None:
    with pytest.raises(Lost, match=error):
        next(read(Pieces(struct.pack(HEADER_FORM, *header), [])))


def test_another_version_is_told_from_garbage() -> None:
    with pytest.raises(LinkRefused, match=r"it speaks version 7 .* and this is version 2"):
        next(read(Pieces(struct.pack(HEADER_FORM, b"FMcl", 7, 1, 0, 0, 0), [])))


def test_a_head_beyond_the_limit_is_refused_before_room_is_made_for_it() -> None:
    reader, sock = FrameReader(most_head=10), Pieces(struct.pack(HEADER_FORM, b"FMcl", 2, 1, 11, 0, 0), [])
    assert reader.head(sock) is None
    with pytest.raises(Lost, match="11 bytes of head"):
        reader.head(sock)
    assert reader._buffer.nbytes == HEADER + WINDOW


def test_errors_of_the_socket_are_losses() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(Lost, match="Broken pipe"):
        Outgoing([b"x"]).flush(ours)


@given(st.binary(max_size=200))
def test_garbage_ends_the_connection(garbage: bytes) -> None:
    with pytest.raises(Lost):
        next(read(Pieces(garbage, [])))

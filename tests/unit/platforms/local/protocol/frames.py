"""Pairs of sockets, and what is received over them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from faasmoe.platforms.local.protocol import frame
from faasmoe.platforms.local.protocol.frame import BUFFER, HEADER, INLINE, Header

EMPTY = Header(INLINE, 0, 0, 0, 0, 0)


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


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

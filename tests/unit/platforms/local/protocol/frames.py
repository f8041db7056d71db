"""Pairs of sockets, and what is received over them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from faasmoe.platforms.local.protocol import frame
from faasmoe.platforms.local.protocol.frame import BUFFER, HEADER, INLINE, Header, Status

EMPTY = Header(INLINE, 0, 0, 0, 0, 0)


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def fresh() -> memoryview:
    return memoryview(bytearray(BUFFER))


def reply_after(data: bytes) -> tuple[int, int, int, bytes]:
    with pair() as (ours, theirs):
        theirs.sendall(data)
        theirs.close()
        buffer = fresh()
        answer, end = frame.receive_reply(ours, buffer)
        return *answer[:3], bytes(buffer[HEADER:end])


def reply_bytes(status: int, crowded: int, length: int, inline: bytes = b"") -> bytes:
    return struct.pack("<4sHBBQ48x", b"FMca", frame.VERSION, status, crowded, length) + inline


def send_reply(sock: socket.socket, status: int = Status.OK) -> None:
    """As an instance does, without anything in it."""
    sock.sendall(reply_bytes(status, 0, 0))

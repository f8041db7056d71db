"""An instance's side of one orchestrator: its connection and the shared memory that it brought."""

from __future__ import annotations

import mmap
import socket

from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.local.protocol.frame import BUFFER, INLINE, MAX_INLINE, Header, Status
from faasmoe.platforms.local.protocol.segment import Mapping


class ServerConnection:
    """Finds what a call is about, and where its reply goes."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.buffer = memoryview(mmap.mmap(-1, BUFFER))  # pages that no call needs are never there
        self.thread = 0  # the kernel's id of the one that serves it
        self.waits = False  # for a reply
        self._requests: Mapping | None = None
        self._replies: Mapping | None = None
        self._area: memoryview | None = None
        self._reserved: Buffer | None = None

    def open(self, header: Header, inline: memoryview, fds: list[int]) -> tuple[memoryview, memoryview | None]:
        """A call's payload, and what it shares with others. Raises `ValueError` if they are not where it says."""
        if fds:
            requests, replies = fds
            try:
                self._replies = Mapping(replies, writable=True)
            except ValueError:
                socket.close(requests)
                raise
            self._requests = Mapping(requests, writable=False)
        self._area = self._reserved = None
        if header.reply_length:
            self._area = _inside(self._replies, header.reply_at, header.reply_length)
        if header.payload_at != INLINE:
            inline = _inside(self._requests, header.payload_at, header.payload_length)
        if header.shared_length:
            return inline, _inside(self._requests, header.shared_at, header.shared_length)
        return inline, None

    def reserve(self, nbytes: int) -> Buffer:
        """Room for the reply: in shared memory if it is large and the caller foresaw it."""
        if nbytes <= MAX_INLINE or self._area is None or nbytes > len(self._area):
            return bytearray(nbytes)
        self._reserved = self._area[:nbytes]
        return self._reserved

    def stored(self, reply: Buffer) -> tuple[Status, Buffer]:
        """How the reply travels. Raises `ValueError` if it is larger than was foreseen."""
        if reply is self._reserved:
            return Status.STORED, reply
        if len(reply) <= MAX_INLINE:
            return Status.OK, reply
        if self._area is None or len(reply) > len(self._area):
            room = len(self._area) if self._area else MAX_INLINE
            raise ValueError(f"a reply of {len(reply)} bytes, but the caller foresaw {room}")
        self._area[: len(reply)] = reply
        return Status.STORED, reply


def _inside(segment: Mapping | None, at: int, length: int) -> memoryview:
    if segment is None:
        raise ValueError("a call refers to shared memory, but none was sent")
    return segment.slice(at, length)

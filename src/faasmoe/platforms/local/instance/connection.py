"""An instance's side of one orchestrator: its connection and the shared memory that it brought."""

from __future__ import annotations

import ctypes
import mmap
import socket
import threading

from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.local.instance.serving import (
    CallerMemory,
    CallOutcome,
    InstanceMemory,
    address,
    finish_call,
    next_call,
)
from faasmoe.platforms.local.protocol.frame import BUFFER, HEADER, INLINE, MAX_INLINE, Header, Status, unpack_call
from faasmoe.platforms.local.protocol.segment import Mapping
from faasmoe.platforms.local.protocol.wire import Lost

_REPLY = BUFFER + HEADER  # where in a connection's memory the bytes of a reply begin
_NOBODY = -1  # instead of a descriptor
_TROUBLES = {
    CallOutcome.SYSTEM: "it broke",
    CallOutcome.CUT_SHORT: "closed by the other side",
    CallOutcome.NOT_A_CALL: "not a call of this version",
    CallOutcome.TOO_LONG: f"more bytes were announced than {MAX_INLINE}, which are the limit",
    CallOutcome.DESCRIPTORS: "another number of descriptors came than a call of its flags brings",
    CallOutcome.BEHIND: "bytes after the end of the call",
    CallOutcome.OUTSIDE: "a call refers to shared memory that is not there",
}


class ServerConnection:
    """Finds what a call is about, and where its reply goes, when Python has to answer it."""

    def __init__(self, connection: socket.socket, instance: InstanceMemory) -> None:
        self.connection = connection
        self._pages = mmap.mmap(-1, ctypes.sizeof(CallerMemory))  # those that no call needs are never there
        self._memory = CallerMemory.from_buffer(self._pages)
        self._memory.socket = connection.fileno()
        self._memory.descriptors = _NOBODY, _NOBODY
        self._at, self._instance = ctypes.addressof(self._memory), ctypes.addressof(instance)
        self._requests: Mapping | None = None
        self._replies: Mapping | None = None
        self._header: Header | None = None
        self._reserved: memoryview | None = None

    def served_here(self) -> None:
        """Replies name the calling thread from now on, which the caller may bind to a core."""
        self._memory.thread = threading.get_native_id()

    def next_call(self) -> bool:
        """Serve calls until one has begun that must be answered here, by `finish`. False: the connection has closed.

        Raises `Lost` if it broke or the other side lied, `ValueError` if what it brought are no segments.
        """
        while (outcome := next_call(self._instance, self._at)) == CallOutcome.SEGMENTS:
            self._map()
        if outcome in _TROUBLES:
            raise Lost(_TROUBLES[CallOutcome(outcome)])
        return bool(outcome == CallOutcome.CALLED)

    def _map(self) -> None:
        memory = self._memory
        requests, replies = memory.descriptors
        memory.descriptors = (_NOBODY, _NOBODY)
        memory.requests.size = memory.replies.size = 0
        try:
            self._replies = Mapping(replies, writable=True)
        except ValueError:
            socket.close(requests)
            raise
        self._requests = Mapping(requests, writable=False)
        for area, mapping in ((memory.requests, self._requests), (memory.replies, self._replies)):
            area.memory, area.size = address(mapping.view), len(mapping.view)

    def call(self) -> tuple[memoryview, memoryview | None, int]:
        """The call that has begun: its payload, what it shares with others, and nanoseconds that it waited."""
        header = unpack_call(self._pages)
        payload = memoryview(self._pages)[HEADER : HEADER + header.payload_length]
        if header.payload_at != INLINE:
            payload = _slice(self._requests, header.payload_at, header.payload_length)
        shared = _slice(self._requests, header.shared_at, header.shared_length) if header.shared_length else None
        self._reserved, self._header = None, header
        return payload, shared, self._memory.call.waited

    def reserve(self, nbytes: int) -> Buffer:
        """Room for the reply: in the frame, or in shared memory if it is large and the caller foresaw it."""
        self._reserved = self._room(nbytes)
        return bytearray(nbytes) if self._reserved is None else self._reserved

    def stored(self, reply: Buffer) -> tuple[Status, int]:
        """Put a reply in its place. Raises `ValueError` if it is larger than was foreseen."""
        length = len(reply)
        if reply is not self._reserved:
            if (room := self._room(length)) is None:
                foreseen = self._header.reply_length if self._header else 0
                raise ValueError(f"a reply of {length} bytes, but the caller foresaw {foreseen or MAX_INLINE}")
            room[:] = reply
        return Status.OK if length <= MAX_INLINE else Status.STORED, length

    def _room(self, nbytes: int) -> memoryview | None:
        if nbytes <= MAX_INLINE:
            return memoryview(self._pages)[_REPLY : _REPLY + nbytes]
        if self._header is None or nbytes > self._header.reply_length:
            return None
        return _slice(self._replies, self._header.reply_at, nbytes)

    def explained(self, status: Status, failure: bytes) -> tuple[Status, int]:
        """Put in place why there is no reply, as far as a frame has room for it."""
        length = min(len(failure), MAX_INLINE)
        self._pages[_REPLY : _REPLY + length] = failure[:length]
        return status, length

    def finish(self, status: Status, length: int) -> None:
        """End the call, and send the reply, whose `length` bytes are in their place. Raises `Lost`."""
        if not finish_call(self._instance, self._at, status, length):
            raise Lost(_TROUBLES[CallOutcome.SYSTEM])


def _slice(segment: Mapping | None, at: int, length: int) -> memoryview:
    if segment is None:  # the loop has looked
        raise ValueError("a call refers to shared memory, but none was sent")
    return segment.slice(at, length)

"""Frames between clients and agents, over any stream socket: a header, a head, and a body.

    header: magic FMcl, version, kind, bytes of the head, number, bytes of the body (little-endian, 24 bytes)

The head is a message or the table of a batch (`messages`). A batch and its replies have the same number; it is in the
header, so that the heads of equal batches are equal. The body is bytes that go where the receiver wants them:
`FrameReader` receives them in place, but for those that came in one read with the head, `WINDOW` at most.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.local.protocol.wire import Lost

VERSION = 2
WINDOW = 32 << 10  # bytes that a read takes beyond what is known to come
MOST_HEAD = 64 << 20  # bytes; all functions of a large model are deployed by one message
MOST_BODY = 1 << 32  # bytes; as much as shared memory of the embedded platform holds
_HEADER = struct.Struct("<4sHHIIQ")
HEADER = _HEADER.size
_MAGIC = b"FMcl"
_MOST_PARTS = 1000  # of one system call; IOV_MAX is 1024


class FrameKind(IntEnum):
    """What a frame's head is."""

    MESSAGE = 1
    BATCH = 2
    REPLIES = 3
    PIECE = 4


_LAST_KIND = int(FrameKind.PIECE)
_new = tuple.__new__  # of what was just unpacked: a named tuple's own checks cost as much as the rest


class LinkRefused(Lost):
    """The other side cannot talk with this one, or will not: trying again does not help by itself."""


class ByteStream(Protocol):
    """A connected socket, plain or under TLS."""

    def sendmsg(self, buffers: Sequence[Buffer], /) -> int:
        """Send the beginning of the parts. Returns how many bytes. Raises `OSError`."""

    def recv_into(self, buffer: Buffer, /) -> int:
        """Receive what is there; 0 at the end. Raises `OSError`."""

    def recvmsg_into(self, buffers: Sequence[Buffer], /) -> tuple[Any, ...]:
        """Receive into one buffer after the other; the first value is how many bytes. Raises `OSError`."""


class Frame(NamedTuple):
    """The beginning of a frame. `head` is valid until the next one is read."""

    kind: int
    head: memoryview
    body: int  # bytes that follow
    number: int = 0  # of the batch that this is, or answers


def framed(kind: FrameKind, head: bytes, body: Sequence[Buffer] = (), number: int = 0) -> list[Buffer]:
    """The parts of a frame, for `Outgoing`. The parts of the body are of bytes, not of larger items."""
    return [_HEADER.pack(_MAGIC, VERSION, kind, len(head), number, sum(map(len, body))) + head, *body]


class Outgoing:
    """A frame on its way into a socket, which may take it in pieces."""

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._left = parts

    def flush(self, sock: ByteStream) -> bool:
        """Send what the socket takes. Returns whether all is sent. Raises `Lost`."""
        try:
            while self._left:
                self._advance(sock.sendmsg(self._left[:_MOST_PARTS]))
        except BlockingIOError:
            return False
        except OSError as error:
            raise Lost(error.strerror or str(error)) from error
        return True

    def _advance(self, sent: int) -> None:
        for at, part in enumerate(self._left):
            if sent < len(part):
                self._left = [memoryview(part)[sent:], *self._left[at + 1 :]]
                return
            sent -= len(part)
        self._left = ()


class FrameReader:
    """Reads frames from a stream socket, which may be blocking or not. For one thread."""

    def __init__(self, most_head: int = MOST_HEAD) -> None:
        self.most_head = most_head  # bytes of a head that are taken; more is an error, not an allocation
        self._buffer = memoryview(bytearray(HEADER + WINDOW))
        self._at = self._end = 0  # of what was received and not handed out
        self._room: list[memoryview] = []  # of the body, as far as it has not come
        self._view = 0  # of the room; those before it are full

    def head(self, sock: ByteStream) -> Frame | None:
        """The next frame, whose body must be received by `into` and `fill` before the next call.

        None: it is not all there, and the socket does not block. Raises `Lost`, `LinkRefused` for another version.
        """
        while True:
            wanted = HEADER
            if self._end - self._at >= HEADER:
                kind, head, number, body = self._header()
                wanted += head
                if self._end - self._at >= wanted:
                    start, self._at = self._at + HEADER, self._at + wanted
                    return _new(Frame, (kind, self._buffer[start : self._at], body, number))
            self._make_room(wanted)
            if not (got := _receive(sock, [self._buffer[self._end :]])):
                return None
            self._end += got

    @property
    def holds(self) -> bool:
        """Whether it has received more than it has handed out."""
        return self._end > self._at

    def rest(self) -> bytes:
        """What was received and not handed out. Nothing more may be read after this: frames have ended."""
        rest = bytes(self._buffer[self._at : self._end])
        self._at = self._end
        return rest

    def into(self, room: Sequence[memoryview]) -> None:
        """Have the body of the last frame received into `room`, one view after the other."""
        self._room = [view for view in room if view.nbytes]
        self._view = 0
        here = self._end - self._at
        while here and self._view < len(self._room):
            view = self._room[self._view]
            taken = min(here, view.nbytes)
            view[:taken] = self._buffer[self._at : self._at + taken]
            self._at += taken
            here -= taken
            self._filled(taken)

    def fill(self, sock: ByteStream) -> bool:
        """Receive of the body what is there. Returns whether it is complete. Raises `Lost`."""
        while self._view < len(self._room):
            got = _receive(sock, self._room[self._view : self._view + _MOST_PARTS])
            if not got:
                return False
            self._filled(got)
        return True

    def _filled(self, got: int) -> None:
        while got and got >= (length := self._room[self._view].nbytes):
            got -= length
            self._view += 1
        if got:
            self._room[self._view] = self._room[self._view][got:]

    def _header(self) -> tuple[int, int, int, int]:
        magic, version, kind, head, number, body = _HEADER.unpack_from(self._buffer, self._at)
        if magic != _MAGIC:
            raise Lost(f"it does not speak the protocol of clusters: a frame begins with {magic!r}")
        if version != VERSION:
            raise LinkRefused(
                f"it speaks version {version} of the protocol of clusters, and this is version {VERSION}"
            )
        if not 1 <= kind <= _LAST_KIND:
            raise Lost(f"a frame of unknown kind {kind}")
        if head > self.most_head or body > MOST_BODY:
            raise Lost(f"a frame with {head} bytes of head and {body} of body; {self.most_head} and {MOST_BODY} "
                       "are the limits")  # fmt: skip
        return kind, head, number, body

    def _make_room(self, wanted: int) -> None:
        """Have room for `wanted` bytes from `_at` on, and a window beyond what has come."""
        have = self._end - self._at
        if not have and wanted <= self._buffer.nbytes:
            self._at = self._end = 0
            return
        rest = self._buffer[self._at : self._end]
        if wanted > self._buffer.nbytes:
            larger = memoryview(bytearray(wanted + WINDOW))
            larger[:have] = rest
            self._buffer = larger
        elif self._at:
            self._buffer[:have] = bytes(rest)  # they may overlap
        else:
            return
        self._at, self._end = 0, have


def _receive(sock: ByteStream, room: Sequence[memoryview]) -> int:
    """Bytes received; 0 if the socket has none and does not block. Raises `Lost`."""
    try:
        got = sock.recv_into(room[0]) if len(room) == 1 else sock.recvmsg_into(room)[0]
    except BlockingIOError:
        return 0
    except TimeoutError as error:
        raise Lost("it does not answer") from error
    except OSError as error:
        raise Lost(error.strerror or str(error)) from error
    if got == 0:
        raise Lost("closed by the other side")
    return got

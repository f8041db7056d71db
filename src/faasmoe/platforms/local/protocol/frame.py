"""Frames between an orchestrator and an instance, version 1: a header, then at most `MAX_INLINE` bytes.

What is larger lies in shared memory (`segment`), and the header says where. So a frame always fits into a socket's
buffer and sending one never waits. A connection carries one call at a time. Numbers are little-endian.

    call:  magic FMcq, version, flags, payload (at, length), shared (at, length), reply area (at, length)
    reply: magic FMca, version, status, flags, length, thread, busy nanoseconds
"""

from __future__ import annotations

import array
import mmap
import socket
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.local.protocol.wire import Lost

VERSION = 1
MAX_INLINE = 32 << 10  # bytes; above it shared memory is cheaper than two copies through the kernel
INLINE = (1 << 64) - 1  # instead of a place in shared memory
_CALL = struct.Struct("<4sHHQQQQQQ8x")  # 64 bytes, so that the payload is aligned for any dtype
_REPLY = struct.Struct("<4sHBBQIQ36x")
HEADER = _CALL.size
_CALL_MAGIC, _REPLY_MAGIC = b"FMcq", b"FMca"
_SEGMENTS = 1  # flag of a call: two descriptors come with it
BUFFER = HEADER + MAX_INLINE
_MOST_LOOKS = 500  # of a socket's patience each, for the rest of a frame


class Status(IntEnum):
    """How a call ended."""

    OK = 0  # the reply follows the header
    STORED = 1  # the reply is in the reply area
    FAILED = 2  # the function raised; why follows (`failure`)
    DRAINING = 3  # not run: the instance is about to end; ask for another
    UNLOADABLE = 4  # the function cannot be loaded, and the instance ends; why follows


STORED, _LAST_STATUS = int(Status.STORED), int(Status.UNLOADABLE)  # compared faster than the enum
_new = tuple.__new__  # of what was just unpacked: a named tuple's own checks cost as much as the rest


class Header(NamedTuple):
    """Of a call. Places are offsets into the caller's shared memory."""

    payload_at: int  # or INLINE
    payload_length: int
    shared_at: int
    shared_length: int  # 0: there is none
    reply_at: int
    reply_length: int  # 0: the reply must fit into the frame


def pack_call(header: Header, segments: bool = False) -> bytes:
    """A call's header. `segments`: two descriptors come with it."""
    return _CALL.pack(_CALL_MAGIC, VERSION, _SEGMENTS if segments else 0, *header)


def unpack_call(frame: Buffer | mmap.mmap) -> Header:
    """The header of a call that `c/serving/frame.c` has received."""
    return _new(Header, _CALL.unpack_from(frame)[3:])


def send_call(sock: socket.socket, head: bytes, inline: Sequence[Buffer], fds: Sequence[int] = ()) -> int:
    """Send a call. `fds`: the segments for requests and for replies, when the instance does not know them yet.

    Returns bytes sent. Raises `Lost`.
    """
    parts = [head, *inline]
    try:  # all of it: a frame fits into an empty buffer
        if fds:
            return sock.sendmsg(parts, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        return sock.sendmsg(parts)
    except OSError as error:
        raise Lost(str(error)) from error


class ReplyHeader(NamedTuple):
    """The header of a reply."""

    status: int  # a `Status`
    crowded: int = 0  # whether others wait for the instance
    length: int = 0  # bytes of the reply
    thread: int = 0  # the kernel's id of the one that serves this connection
    busy: int = 0  # nanoseconds that the instance worked on the call (`BusyTime`)


def receive_reply(sock: socket.socket, buffer: memoryview) -> tuple[ReplyHeader, int]:
    """A reply's header, and where in `buffer` the bytes in the frame end.

    They start at `HEADER`. Raises `Lost`; `BlockingIOError` if nothing came within the socket's patience.
    """
    try:
        got = sock.recv_into(buffer)
        if got < HEADER:
            got = _until(sock, buffer, got, HEADER)
        fields = _REPLY.unpack_from(buffer)
        magic, version, status, crowded, length = fields[:5]
        if magic != _REPLY_MAGIC or version != VERSION or status > _LAST_STATUS or crowded > 1:
            raise Lost(f"not a reply of version {VERSION}: {magic!r}, version {version}, status {status}")
        end = HEADER if status == STORED else HEADER + length
        if end > BUFFER:
            raise Lost(f"{length} bytes were announced, {MAX_INLINE} are the limit")
        if got < end:
            got = _until(sock, buffer, got, end)
        if got != end:
            raise Lost("bytes after the end of the reply")
        return _new(ReplyHeader, fields[2:]), end
    except BlockingIOError:
        raise
    except OSError as error:
        raise Lost(str(error)) from error


def _until(sock: socket.socket, buffer: memoryview, got: int, wanted: int) -> int:
    """Receive on until at least `wanted` bytes are there. Returns how many are."""
    if got == 0:
        raise Lost("closed by the other side")
    looks = 0
    while got < wanted:
        try:
            more = sock.recv_into(buffer[got:])
        except BlockingIOError as error:
            looks += 1  # the other side may have lost its core in the middle of sending
            if looks < _MOST_LOOKS:
                continue
            raise Lost("the other side stopped in the middle") from error
        if more == 0:
            raise Lost("closed by the other side")
        got += more
    return got

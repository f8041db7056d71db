"""JSON messages between daemon, zygote and clients: eight bytes of length, then the text, over unix stream sockets."""

from __future__ import annotations

import array
import json
import os
import resource
import socket
import struct
from collections.abc import Sequence
from typing import Any

_LENGTH = struct.Struct("<Q")
MAX_MESSAGE = 1 << 26  # bytes; a longer announcement is an error, not an allocation
_MAX_FDS = 8


class Lost(Exception):
    """The other side closed the connection, broke it, or sent what cannot be understood."""


def raise_descriptor_limit() -> None:
    """Have as many descriptors as this process may: daemon and clients need some for each instance."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def pack(message: dict[str, Any]) -> bytes:
    """A message as it travels."""
    text = json.dumps(message).encode()
    return _LENGTH.pack(len(text)) + text


def length_of(head: bytes | bytearray) -> int:
    """Bytes of text that follow a head of 8. Raises `Lost` if they would be too many."""
    (length,) = _LENGTH.unpack(head)
    if length > MAX_MESSAGE:
        raise Lost(f"a message of {length} bytes was announced, {MAX_MESSAGE} are the limit")
    return int(length)


def parse(text: bytes | bytearray) -> dict[str, Any]:
    """A message's text. Raises `Lost` if it is not a JSON object."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Lost(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise Lost("not a JSON object")
    return message


def take(buffer: bytearray) -> dict[str, Any] | None:
    """The first message of what was received, taken out of it; None if it is not whole yet. Raises `Lost`."""
    if len(buffer) < _LENGTH.size:
        return None
    end = _LENGTH.size + length_of(buffer[: _LENGTH.size])
    if len(buffer) < end:
        return None
    message = parse(buffer[_LENGTH.size : end])
    del buffer[:end]
    return message


def send(sock: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message, with descriptors if given. Raises `Lost`; `TimeoutError` after the socket's timeout."""
    data = pack(message)
    try:
        if fds:
            sent = socket.send_fds(sock, [data], list(fds))
            data = data[sent:]
        if data:  # sending nothing fails if the other side has all of it and hung up
            sock.sendall(data)
    except TimeoutError:
        raise
    except OSError as error:
        raise Lost(str(error)) from error


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """One whole message and the descriptors that came with it.

    Raises `Lost`; `TimeoutError` after the socket's timeout.
    """
    fds: list[int] = []
    try:
        head = _exactly(sock, _LENGTH.size, fds)
        return parse(_exactly(sock, length_of(head), fds)), fds
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def _exactly(sock: socket.socket, length: int, fds: list[int]) -> bytes:
    data = bytearray(length)
    view, at = memoryview(data), 0
    size = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)
    try:
        while at < length:
            got, ancillary, flags, _ = sock.recvmsg_into([view[at:]], size, socket.MSG_CMSG_CLOEXEC)
            fds += descriptors(ancillary)
            if flags & socket.MSG_CTRUNC:
                raise Lost("more descriptors than a message may bring")
            if got == 0:
                raise Lost("closed by the other side")
            at += got
    except TimeoutError:
        raise
    except OSError as error:
        raise Lost(str(error)) from error
    return bytes(data)


def descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in what came beside a message."""
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)

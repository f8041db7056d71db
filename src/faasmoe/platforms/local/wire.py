"""Framing of the embedded platform: eight bytes of length, then the message, over unix stream sockets.

Towards instances a message is an envelope of bytes, towards the daemon a JSON object.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

Buffer = bytes | bytearray | memoryview

_LENGTH = struct.Struct("<Q")
STALL_SECONDS = 30.0  # a peer that stops in mid-message is given up after this, so that others are served
MAX_MESSAGE = 1 << 30  # bytes; a longer announcement is an error, not an allocation


class Lost(Exception):
    """The other side closed the connection, or it broke."""


def send(sock: socket.socket, parts: Sequence[Buffer]) -> None:
    """Send one message, gathered from `parts`. Raises `Lost`; `TimeoutError` after the socket's timeout."""
    views = [memoryview(part).cast("B") for part in parts if len(part)]
    pending = [memoryview(_LENGTH.pack(sum(map(len, views)))), *views]
    try:
        while pending:
            sent = sock.sendmsg(pending)
            while pending and sent >= len(pending[0]):
                sent -= len(pending.pop(0))
            if sent:
                pending[0] = pending[0][sent:]
    except (BrokenPipeError, ConnectionError) as error:
        raise Lost(str(error)) from error


def receive(sock: socket.socket) -> bytearray:
    """One whole message. Raises `Lost`; `TimeoutError` after the socket's timeout."""
    (length,) = _LENGTH.unpack(_receive_exactly(sock, _LENGTH.size))
    if length > MAX_MESSAGE:
        raise Lost(f"a message of {length} bytes was announced, {MAX_MESSAGE} are the limit")
    return _receive_exactly(sock, length)


def send_json(sock: socket.socket, message: dict[str, Any]) -> None:
    """Send a JSON object as one message."""
    send(sock, [json.dumps(message).encode()])


def receive_json(sock: socket.socket) -> dict[str, Any]:
    """A JSON object. Raises `Lost`, also if the message is something else."""
    try:
        message = json.loads(receive(sock))
    except ValueError as error:
        raise Lost(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise Lost("not a JSON object")
    return message


def _receive_exactly(sock: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    view = memoryview(data)
    at = 0
    try:
        while at < length:
            got = sock.recv_into(view[at:])
            if got == 0:
                raise Lost("closed by the other side")
            at += got
    except ConnectionError as error:
        raise Lost(str(error)) from error
    return data

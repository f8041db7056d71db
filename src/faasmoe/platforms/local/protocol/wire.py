"""How messages of clients and the daemon travel: eight bytes of length, then the text, over unix stream sockets."""

from __future__ import annotations

import resource
import socket
import struct

_LENGTH = struct.Struct("<Q")
HEAD = _LENGTH.size  # bytes
MAX_MESSAGE = 1 << 26  # bytes; a longer announcement is an error, not an allocation


class Lost(Exception):
    """The other side closed the connection, broke it, or sent what cannot be understood."""


def raise_descriptor_limit() -> None:
    """Have as many descriptors as this process may: daemon and clients need some for each instance."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def framed(text: bytes) -> bytes:
    """A message's text as it travels."""
    return _LENGTH.pack(len(text)) + text


def length_of(head: bytes | bytearray) -> int:
    """Bytes of text that follow a head of `HEAD` bytes. Raises `Lost` if they would be too many."""
    (length,) = _LENGTH.unpack(head)
    if length > MAX_MESSAGE:
        raise Lost(f"a message of {length} bytes was announced, {MAX_MESSAGE} are the limit")
    return int(length)


def receive(sock: socket.socket) -> bytearray:
    """The text of one whole message. Raises `Lost`; `TimeoutError` after the socket's timeout."""
    return _exactly(sock, length_of(_exactly(sock, HEAD)))


def _exactly(sock: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    view, at = memoryview(data), 0
    try:
        while at < length:
            got = sock.recv_into(view[at:])
            if got == 0:
                raise Lost("closed by the other side")
            at += got
    except TimeoutError:
        raise
    except OSError as error:
        raise Lost(str(error)) from error
    return data

"""The end of a socket at which orders arrive: the server's of its client's orders, a worker's of its assignment."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from faasmoe.errors import MessageError
from faasmoe.util.forkserver.messages import (
    LARGEST_PACKET,
    MOST_DESCRIPTORS,
    Event,
    Load,
    Order,
    pack,
    read_order,
)


class ClientLeft(Exception):
    """The other end is closed."""


class Connection:
    """For a blocking SOCK_SEQPACKET socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def fileno(self) -> int:
        """Readable when an order is there."""
        return self._socket.fileno()

    def receive(self) -> tuple[Order, list[int]]:
        """An order and the descriptors that came with it. Raises `ClientLeft` or `MessageError`.

        There are no descriptors if this process had not as many free as were sent.
        """
        try:
            packet, fds, flags, _ = socket.recv_fds(self._socket, LARGEST_PACKET, MOST_DESCRIPTORS)
        except OSError as error:
            raise ClientLeft from error
        if not packet:
            raise ClientLeft
        try:
            if flags & socket.MSG_TRUNC:
                raise MessageError(f"a packet of more than {LARGEST_PACKET} bytes")
            order = read_order(packet)
        except MessageError:
            close_all(fds)
            raise
        if flags & socket.MSG_CTRUNC:
            close_all(fds)
            return order, []
        return order, fds

    def load(self) -> bytes:
        """The payload of the first order, which must be `Load`. Raises `ClientLeft` or `MessageError`."""
        order, fds = self.receive()
        close_all(fds)
        if not isinstance(order, Load):
            raise MessageError(f"{type(order).__name__}, which is not Load, first")
        return order.payload

    def send(self, event: Event) -> None:
        """Raises `ClientLeft`."""
        try:
            self._socket.send(pack(event))
        except OSError as error:
            raise ClientLeft from error

    def close(self) -> None:
        """Close the descriptor."""
        self._socket.close()


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that nobody will use."""
    for fd in fds:
        os.close(fd)

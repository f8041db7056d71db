"""Packets on their way into a socket that may be full: its owner never waits for the other side."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Sequence

from faasmoe.util.forkserver.connection import close_all

MOST_WAITING = 1 << 16  # packets


class OrderQueue:
    """For one non-blocking SOCK_SEQPACKET socket and one asyncio loop. Packets arrive in the order of `send`."""

    def __init__(self, sock: socket.socket, most: int = MOST_WAITING) -> None:
        self._socket = sock
        self._most = most
        self._waiting: deque[tuple[bytes, list[int]]] = deque()  # with descriptors of our own

    def send(self, packet: bytes, fds: Sequence[int] = ()) -> None:
        """Send now, or as soon as there is room in the socket.

        Raises `ConnectionError` if the other side is gone, `BlockingIOError` if too many packets wait already, and
        another `OSError` if there are no descriptors for a packet that must wait.
        """
        if not self._waiting and self._sent(packet, fds):
            return
        if len(self._waiting) >= self._most:
            raise BlockingIOError(f"{self._most} packets wait already")
        copies = _copies(fds)
        if not self._waiting:
            asyncio.get_running_loop().add_writer(self._socket, self._go_on)
        self._waiting.append((packet, copies))

    def _sent(self, packet: bytes, fds: Sequence[int]) -> bool:
        try:
            socket.send_fds(self._socket, [packet], fds)
        except BlockingIOError:
            return False
        return True

    def _go_on(self) -> None:
        try:
            while self._waiting:
                packet, fds = self._waiting[0]
                if not self._sent(packet, fds):
                    return
                self._waiting.popleft()
                close_all(fds)
        except OSError:  # who reads from the socket hears of its end
            self.close()
            return
        asyncio.get_running_loop().remove_writer(self._socket)

    def close(self) -> None:
        """Forget what was not sent. The socket stays open. May be called twice."""
        asyncio.get_running_loop().remove_writer(self._socket)
        while self._waiting:
            close_all(self._waiting.popleft()[1])


def _copies(fds: Sequence[int]) -> list[int]:
    """Raises `OSError`, and leaves none open then."""
    copies: list[int] = []
    try:
        for fd in fds:
            copies.append(os.dup(fd))  # noqa: PERF401 - what was opened must be known if the next one fails
    except OSError:
        close_all(copies)
        raise
    return copies

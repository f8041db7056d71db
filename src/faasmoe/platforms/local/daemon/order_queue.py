"""Messages on their way into a socket that may be full: its owner never waits for the other side."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

from faasmoe.platforms.local.protocol import wire


class OrderQueue:
    """For one non-blocking stream socket and one asyncio loop. Messages arrive in the order of `send`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._waiting: deque[tuple[bytes, list[int]]] = deque()  # with descriptors of our own

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send now what can be sent, and the rest later. Raises `OSError` if the other side is gone."""
        data = wire.pack(message)
        if not self._waiting:
            data, fds = self._now(data, fds)
        if data:
            if not self._waiting:
                asyncio.get_running_loop().add_writer(self._socket, self._go_on)
            self._waiting.append((data, [os.dup(fd) for fd in fds]))

    def _now(self, data: bytes, fds: Sequence[int]) -> tuple[bytes, Sequence[int]]:
        """Returns what could not be sent."""
        try:
            sent = socket.send_fds(self._socket, [data], list(fds)) if fds else self._socket.send(data)
        except BlockingIOError:
            return data, fds
        return data[sent:], ()

    def _go_on(self) -> None:
        try:
            while self._waiting:
                data, fds = self._waiting[0]
                rest, kept = self._now(data, fds)
                if not kept:
                    _close(fds)
                if rest:
                    self._waiting[0] = rest, list(kept)
                    return
                self._waiting.popleft()
        except OSError:  # who reads from the socket hears of its end
            self.close()
            return
        asyncio.get_running_loop().remove_writer(self._socket)

    def close(self) -> None:
        """Forget what was not sent. The socket stays open. May be called twice."""
        asyncio.get_running_loop().remove_writer(self._socket)
        while self._waiting:
            _close(self._waiting.popleft()[1])


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)

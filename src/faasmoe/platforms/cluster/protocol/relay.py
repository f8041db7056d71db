"""Carries the bytes of an orchestrator's socket between two machines."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable

from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.frame import ByteStream, Outgoing
from faasmoe.platforms.local.protocol.wire import Lost
from faasmoe.util.liveness import TICK

_CHUNK = 64 << 10  # bytes that are under way in each direction; whoever sends more waits


class Relay:
    """Carries bytes both ways between a connection, after its last frame, and a local stream socket. For one thread.

    Any thread may `cut` the connection, or shut down the socket.
    """

    def __init__(self, connection: Connection, local: socket.socket, check: Callable[[bool], str]) -> None:
        """`check` is called each `TICK`, with whether the local socket has sent since: why to end, or ""."""
        local.setblocking(False)
        self._sockets = connection.socket, local
        self._check = check
        self._out = _Direction(local, connection.socket)
        self._in = _Direction(connection.socket, local, connection.reader.rest())

    def run(self) -> str:
        """Carry until one side ends. Returns the cause."""
        poll, due, heard = select.poll(), time.monotonic() + TICK, False
        for sock in self._sockets:
            poll.register(sock, 0)
        try:
            while True:
                sent = self._out.move()
                heard |= sent
                if not self._in.move() and not sent:
                    self._wait(poll)
                if time.monotonic() >= due:
                    if cause := self._check(heard):
                        return cause
                    due, heard = time.monotonic() + TICK, False
        except Lost as error:
            return str(error)

    def _wait(self, poll: select.poll) -> None:
        remote, local = self._sockets
        poll.modify(remote, self._in.wants_read | self._out.wants_write)
        poll.modify(local, self._out.wants_read | self._in.wants_write)
        poll.poll(TICK * 1000)


class _Direction:
    """From a socket that does not block to another one."""

    def __init__(self, source: ByteStream, sink: ByteStream, first: bytes = b"") -> None:
        self._source, self._sink = source, sink
        self._room = memoryview(bytearray(_CHUNK))
        self._left = Outgoing([first]) if first else None

    @property
    def wants_read(self) -> int:
        """The event for `select.poll` at the source."""
        return 0 if self._left else select.POLLIN

    @property
    def wants_write(self) -> int:
        """The event for `select.poll` at the sink."""
        return select.POLLOUT if self._left else 0

    def move(self) -> bool:
        """Receive what is there, and send it as far as that goes. Returns whether more may go. Raises `Lost`."""
        if self._left is None:
            try:
                got = self._source.recv_into(self._room)
            except BlockingIOError:
                return False
            except OSError as error:
                raise Lost(error.strerror or str(error)) from error
            if not got:
                raise Lost("closed by the other side")
            self._left = Outgoing([self._room[:got]])
        if not self._left.flush(self._sink):
            return False
        self._left = None
        return True

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
        """`check` is called each `TICK`, with whether the local socket has sent since: why to end, or "".

        While the other machine takes nothing, the local socket cannot be judged: it counts as one that has sent.
        """
        self.left_here = False  # the local side has ended first
        local.setblocking(False)
        self._sockets = connection.socket, local
        self._check = check
        self._out = _Direction(local, connection.socket)
        self._in = _Direction(connection.socket, local, connection.reader.rest())

    def run(self) -> str:
        """Carry until one side ends. Returns the cause."""
        due, heard = time.monotonic() + TICK, False
        try:
            while True:
                sent = self._out.move()
                heard |= sent or self._out.is_full
                if not self._in.move() and not sent:
                    self._wait()
                if time.monotonic() >= due:
                    if cause := self._check(heard):
                        return cause
                    due, heard = time.monotonic() + TICK, False
        except _SideLost as error:
            self.left_here = error.side is self._sockets[1]
            return str(error)

    def _wait(self) -> None:
        """Wait until a direction can go on. A socket of which none wants anything would report its end without end."""
        remote, local = self._sockets
        poll = select.poll()
        for sock, events in (
            (remote, self._in.wants_read | self._out.wants_write),
            (local, self._out.wants_read | self._in.wants_write),
        ):
            if events:
                poll.register(sock, events)
        poll.poll(TICK * 1000)


class _SideLost(Lost):
    """One of the sockets has ended."""

    def __init__(self, side: ByteStream, cause: str) -> None:
        super().__init__(cause)
        self.side = side


class _Direction:
    """From a socket that does not block to another one."""

    def __init__(self, source: ByteStream, sink: ByteStream, first: bytes = b"") -> None:
        self._source, self._sink = source, sink
        self._room = memoryview(bytearray(_CHUNK))
        self._left = Outgoing([first]) if first else None

    @property
    def is_full(self) -> bool:
        """Whether the sink does not take what was received."""
        return self._left is not None

    @property
    def wants_read(self) -> int:
        """The event for `select.poll` at the source."""
        return 0 if self.is_full else select.POLLIN

    @property
    def wants_write(self) -> int:
        """The event for `select.poll` at the sink."""
        return select.POLLOUT if self.is_full else 0

    def move(self) -> bool:
        """Receive what is there, and send it as far as that goes. Returns whether more may go. Raises `_SideLost`."""
        if self._left is None:
            try:
                got = self._source.recv_into(self._room)
            except BlockingIOError:
                return False
            except OSError as error:
                raise _SideLost(self._source, error.strerror or str(error)) from error
            if not got:
                raise _SideLost(self._source, "closed by the other side")
            self._left = Outgoing([self._room[:got]])
        try:
            if not self._left.flush(self._sink):
                return False
        except Lost as error:
            raise _SideLost(self._sink, str(error)) from error
        self._left = None
        return True

"""The fork server's process: it obeys its client over a socket that it inherits, and ends when that closes.

python -m MODULE DESCRIPTOR PARENT, where MODULE calls `run`
"""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

from faasmoe.errors import MessageError
from faasmoe.util import logs
from faasmoe.util.forkserver.messages import (
    LARGEST_PACKET,
    Ended,
    Event,
    Fork,
    Forked,
    Kill,
    Killed,
    Load,
    Order,
    pack,
    read_order,
)
from faasmoe.util.processes import Children, die_with_parent, leave_signals_to_parent, set_name

log = logging.getLogger(__name__)

# a child's work on its socket and `Fork.payload`; returns the exit status
Become = Callable[[socket.socket, bytes], int]


class ClientLeft(Exception):
    """The client has closed its end."""


class Connection:
    """The server's end of its client's socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def fileno(self) -> int:
        """Readable when an order is there."""
        return self._socket.fileno()

    def receive(self) -> tuple[Order, list[int]]:
        """An order and the descriptors that came with it. Raises `ClientLeft` or `MessageError`."""
        try:
            packet, fds, flags, _ = socket.recv_fds(self._socket, LARGEST_PACKET, 1)
        except OSError as error:
            raise ClientLeft from error
        if not packet:
            raise ClientLeft
        try:
            if flags & socket.MSG_TRUNC:
                raise MessageError(f"a packet of more than {LARGEST_PACKET} bytes")
            return read_order(packet), fds
        except MessageError:
            _close(fds)
            raise

    def load(self) -> bytes:
        """The payload of the first order, which must be `Load`. Raises `ClientLeft` or `MessageError`."""
        order, fds = self.receive()
        _close(fds)
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


class ForkServer:
    """Forks a child that does `become` for each `Fork`, reaps children, and tells the client about both."""

    def __init__(
        self,
        connection: Connection,
        role: str,
        become: Become,
        *,
        fork: Callable[[], int] = os.fork,
        kill: Callable[[int, int], None] = os.kill,
        children: Children | None = None,
    ) -> None:
        """`role`: the children's name in the log and in the process table."""
        self._connection = connection
        self._role = role
        self._become = become
        self._os_fork = fork
        self._os_kill = kill
        self._numbers: dict[int, int] = {}  # process id to number
        self._children = children or Children()

    def serve(self) -> None:
        """Run until `ClientLeft`, or `MessageError` if a packet is no order."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(self._children, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._children.fileno():
                    self._reap()
                else:
                    self._obey(*self._connection.receive())

    def _obey(self, order: Order, fds: list[int]) -> None:
        try:
            if isinstance(order, Fork):
                self._fork(order, fds[0] if fds else None)
            elif isinstance(order, Kill):
                for pid in [pid for pid, number in self._numbers.items() if number == order.number]:
                    self._os_kill(pid, signal.SIGKILL)  # not reaped yet, so that its id is nobody else's
                self._connection.send(Killed(order.number))
            else:
                raise MessageError(f"{type(order).__name__}, which is neither Fork nor Kill")
        finally:
            _close(fds)

    def _fork(self, order: Fork, descriptor: int | None) -> None:
        """`descriptor` is None if the kernel could not hand it over: this process had none free."""
        parent = os.getpid()
        try:
            if descriptor is None:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            pid = self._os_fork()
        except OSError as error:
            log.error("no %s can be forked: %s", self._role, error.strerror)
            self._connection.send(Ended(order.number, 1))
            return
        if pid == 0:
            self._live(parent, descriptor, order.payload)
        self._numbers[pid] = order.number
        self._connection.send(Forked(order.number, pid))

    def _live(self, parent: int, descriptor: int, payload: bytes) -> None:
        """The child's whole life. Does not return."""
        status = 1
        try:
            die_with_parent(parent)
            self._children.leave()
            self._connection.close()
            set_name(self._role)
            logs.inherit(self._role)
            status = self._become(socket.socket(fileno=descriptor), payload)
        except Exception:  # the last frame of this process
            log.exception("the %s has failed", self._role)
        finally:
            os._exit(status)  # no destructors of the server's objects

    def _reap(self) -> None:
        for pid, status in self._children.ended():
            if (number := self._numbers.pop(pid, None)) is not None:
                self._connection.send(Ended(number, status))


def run(name: str, serve: Callable[[Connection], None]) -> None:
    """The `main` of a fork server: do `serve` until the client leaves. `name`: the process's name in the log."""
    descriptor, parent = map(int, sys.argv[1:])
    die_with_parent(parent)
    leave_signals_to_parent()
    logs.inherit(name)
    with suppress(ClientLeft):
        try:
            serve(Connection(socket.socket(fileno=descriptor)))
        except MessageError as error:
            log.error("the client sent %s", error)
            sys.exit(1)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)

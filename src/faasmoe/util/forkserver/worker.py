"""A worker: a child that was forked, and waits for its assignment."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from faasmoe.errors import MessageError
from faasmoe.util.forkserver.connection import Connection
from faasmoe.util.forkserver.messages import Fork, pack
from faasmoe.util.liveness import HangJudge


class Assignment(NamedTuple):
    """What a child is to do."""

    payload: bytes  # of `Fork`
    descriptors: list[int]  # which the child owns


class Worker:
    """The server's hold on a child without an assignment."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        """`channel`: the worker waits at the other end of this SOCK_SEQPACKET socket."""
        channel.setblocking(False)
        self.pid = pid
        self.judge = HangJudge()
        self._channel = channel

    def assign(self, order: Fork, fds: Sequence[int]) -> None:
        """Have it do what `order` says; this object is of no use afterwards. Raises `OSError` if it has ended."""
        with self._channel:
            socket.send_fds(self._channel, [pack(order)], fds)

    def close(self) -> None:
        """Have no more to do with it."""
        self._channel.close()


def fork_worker(live: Callable[[Connection], None]) -> Worker:
    """Fork a child that does `live`, which does not return, with its end of the channel. Raises `OSError`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            raise
        if pid == 0:
            ours.close()
            live(Connection(theirs))
    return Worker(pid, ours)


def wait_for_assignment(channel: Connection) -> Assignment:
    """Wait, in the child. Closes `channel`.

    Raises `ClientLeft` if the server has no use for this worker, `OSError` if this process has too few descriptors.
    """
    try:
        order, fds = channel.receive()
    finally:
        channel.close()
    if not isinstance(order, Fork):
        raise MessageError(f"{type(order).__name__}, which is no assignment")
    if not fds:
        raise no_descriptors()
    return Assignment(order.payload, fds)


def no_descriptors() -> OSError:
    """The error of descriptors that the kernel could not hand over."""
    return OSError(errno.EMFILE, os.strerror(errno.EMFILE))

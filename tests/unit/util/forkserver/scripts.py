"""A fork server whose client and children follow a script."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from faasmoe.util.forkserver.connection import ClientLeft, Connection, close_all
from faasmoe.util.forkserver.messages import (
    Event,
    Fork,
    Order,
)
from faasmoe.util.forkserver.server import ForkServer
from faasmoe.util.forkserver.worker import Assignment, Worker, wait_for_assignment
from faasmoe.util.processes import Children

Ends = list[tuple[int, int]]
# an order, what `receive` raises, children that end, what happens then, or how often the server tries to fork meanwhile
Step = Order | Exception | Ends | Callable[[], object] | int


AGAIN = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


class Exited(BaseException):
    """What `os._exit` does in these tests."""


class Pipe:
    """Readable while something is to be told."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)


class Script(Connection):
    """A client that gives an order a time; each of its steps waits for the one before."""

    def __init__(self, *steps: Step, without_descriptor: bool = False) -> None:
        self._steps = [*steps, ClientLeft()]
        self._without_descriptor = without_descriptor
        self._orders, self._ends = Pipe(), Pipe()
        self._next: Step = []
        self.sent: list[Event] = []
        self.given: list[int] = []  # descriptors, which the server owns
        self.closed = False
        self.children = Reaped(self)
        self.ready()

    def ready(self) -> None:
        self._next = self._steps.pop(0)
        if callable(self._next):
            self._next()
            self.ready()
        elif isinstance(self._next, list):
            os.write(self._ends.write, b"x")
        elif not isinstance(self._next, int):
            os.write(self._orders.write, b"x")

    def tried(self) -> None:
        """The server has forked a worker, or could not."""
        if isinstance(self._next, int):
            self._next -= 1
            if not self._next:
                self.ready()

    def fileno(self) -> int:
        return self._orders.read

    def receive(self) -> tuple[Order, list[int]]:
        os.read(self._orders.read, 1)
        step = self._next
        if isinstance(step, Exception):
            raise step
        assert isinstance(step, Order)
        fds = [] if self._without_descriptor or not isinstance(step, Fork) else [os.open(os.devnull, os.O_RDONLY)]
        self.given += fds
        self.ready()
        return step, fds

    def send(self, event: Event) -> None:
        self.sent.append(event)

    def close(self) -> None:
        self.closed = True

    def dispose(self) -> None:
        self._orders.close()
        self._ends.close()


class Reaped(Children):
    """The children's ends, as the script has them."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.left = False

    def fileno(self) -> int:
        return self._script._ends.read

    def ended(self) -> Iterator[tuple[int, int]]:
        os.read(self._script._ends.read, 1)
        ends = self._script._next
        assert isinstance(ends, list)
        yield from ends
        self._script.ready()

    def leave(self) -> None:
        self.left = True


class Forks:
    """In place of `fork_worker` and `os.kill`: process ids 100, 101, ..., after these errors.

    What a worker is told can be read from its end of the channel.
    """

    def __init__(self, *errors: OSError) -> None:
        self._errors = list(errors)
        self._last = 99
        self.script: Script | None = None
        self.ends: dict[int, Connection] = {}
        self.killed: list[tuple[int, int]] = []

    def fork(self, live: Callable[[Connection], None]) -> Worker:
        assert self.script
        self.script.tried()
        if self._errors:
            raise self._errors.pop(0)
        self._last += 1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ends[self._last] = Connection(theirs)
        return Worker(self._last, ours)

    def kill(self, pid: int, number: int) -> None:
        self.killed.append((pid, number))

    def assignment(self, pid: int) -> bytes:
        """The payload that a worker got, with one descriptor."""
        payload, fds = wait_for_assignment(self.ends[pid])
        assert len(fds) == 1
        close_all(fds)
        return payload


def refuse(wait: Callable[[], Assignment]) -> int:
    raise AssertionError("only a child does this")


def made_of(script: Script, forks: Forks, **options: Any) -> ForkServer:
    forks.script = script
    return ForkServer(
        script, "worker", refuse, fork=forks.fork, kill=forks.kill, children=script.children, **options
    )


def serve(script: Script, forks: Forks, raises: type[Exception] = ClientLeft, **options: Any) -> list[Event]:
    """What the server has sent when it ended by `raises`."""
    return serve_by(made_of(script, forks, **options), script, forks, raises)


def serve_by(made: ForkServer, script: Script, forks: Forks, raises: type[Exception] = ClientLeft) -> list[Event]:
    try:
        with pytest.raises(raises):
            made.serve()
    finally:
        script.dispose()
        for end in (*forks.ends.values(), *made._waiting):
            end.close()
    for fd in script.given:
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(fd)  # the children have copies
    return script.sent

"""The client's end of a fork server, from the server's start to its end."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Generic, TypeVar

from faasmoe.errors import FaasmoeError, MessageError, ProcessLost
from faasmoe.util import processes
from faasmoe.util.forkserver.messages import (
    LARGEST_PACKET,
    Ended,
    Event,
    Fork,
    Forked,
    Kill,
    Killed,
    Load,
    Loaded,
    Order,
    pack,
    read_event,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

_REAP_SECONDS = 1.0
_STDERR = 2


def spawn(module: str, environment: Mapping[str, str], connection: socket.socket) -> subprocess.Popen[bytes]:
    """Start a fork server whose `main` is in `module`. Raises `OSError`."""
    return processes.start(
        module,
        [str(connection.fileno()), str(os.getpid())],
        stdout=_STDERR,  # what a library prints must not get among our own output
        descriptors=[connection.fileno()],
        more=environment,
    )


class ForkedChild:
    """A child that the server was told to fork."""

    def __init__(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.pid: asyncio.Future[int] = loop.create_future()  # or `ProcessLost`
        self.ended: asyncio.Future[int] = loop.create_future()  # exit status, or minus the signal that killed it
        self.dying = False  # its kill is ordered, and not done yet
        self.pid.add_done_callback(_retrieve)

    @property
    def awaited(self) -> bool:
        """Whether the server owes an answer about this child."""
        return not self.pid.done() or self.dying

    def lose(self, status: int, error: FaasmoeError) -> None:
        """The child has ended with `status`. Whoever still waits for its start gets `error`."""
        if not self.pid.done():
            self.pid.set_exception(error)
        if not self.ended.done():
            self.ended.set_result(status)


class ForkServerClient(Generic[T]):
    """One process that forks. For one asyncio loop. Raises `OSError` if it cannot be started.

    `loaded` gets the decoded payload of `Loaded`, or the error that the server has sent or died of.
    """

    def __init__(
        self,
        *,
        name: str,
        role: str,
        spawn: Callable[[socket.socket], subprocess.Popen[bytes]],
        decode: Callable[[bytes], T],
        decode_error: Callable[[bytes], FaasmoeError],
        on_event: Callable[[], None] = lambda: None,
        on_end: Callable[[FaasmoeError], None] = lambda _: None,
    ) -> None:
        """`name`, `role`: nouns for the server and its children in errors.

        `on_event` is called at each packet; `on_end` once, with the reason, when the server and all children have
        been ended.
        """
        self._name = name
        self._role = role
        self._decode = decode
        self._decode_error = decode_error
        self._on_event = on_event
        self._on_end = on_end
        self._children: dict[int, ForkedChild] = {}  # by number, until they have ended
        self._numbers = itertools.count()
        self._loop = asyncio.get_running_loop()
        self.loaded: asyncio.Future[T] = self._loop.create_future()
        self.loaded.add_done_callback(_retrieve)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = spawn(theirs)
            except BaseException:
                self._socket.close()
                raise
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._hear)

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server has not been ended."""
        return self._socket.fileno() >= 0

    @property
    def awaited(self) -> bool:
        """Whether the server owes an answer."""
        return not self.loaded.done() or any(child.awaited for child in self._children.values())

    def load(self, payload: bytes) -> None:
        """Have the server load what `payload` describes. Raises `ProcessLost`."""
        self._send(Load(payload))

    def fork(self, descriptor: int, payload: bytes = b"") -> ForkedChild:
        """Have a child forked that owns a copy of `descriptor`. Raises `ProcessLost`."""
        child = ForkedChild(next(self._numbers))
        self._send(Fork(child.number, payload), descriptor)
        self._children[child.number] = child
        return child

    def kill(self, number: int) -> None:
        """Have a child killed. One that has ended is fine."""
        if child := self._children.get(number):
            child.dying = True
            with suppress(ProcessLost):  # then the child ends with the server
                self._send(Kill(number))

    def end(self, error: FaasmoeError) -> None:
        """Kill the server and all its children. `error` is for those who wait. May be called twice."""
        if not self.running:
            return
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._process.kill()  # the kernel kills its children with it
        try:
            self._process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("the %s, process %d, was killed and is not gone yet", self._name, self._process.pid)
        if not self.loaded.done():
            self.loaded.set_exception(error)
        for child in self._children.values():
            child.lose(-signal.SIGKILL, error)
        self._children.clear()
        self._on_end(error)

    def _send(self, order: Order, *descriptors: int) -> None:
        """Never blocks. Raises `ProcessLost` if the server is gone or takes no orders."""
        if not self.running:
            raise ProcessLost(f"the {self._name} has ended")
        try:
            socket.send_fds(self._socket, [pack(order)], descriptors)
        except BlockingIOError:  # orders that the server has not read fill the socket
            error = ProcessLost(f"the {self._name} takes no orders")
            self.end(error)
            raise error from None
        except OSError as error:
            raise ProcessLost(f"the {self._name} takes no orders: {error.strerror}") from error

    def _hear(self) -> None:
        try:
            packet, _, flags, _ = self._socket.recvmsg(LARGEST_PACKET)
        except BlockingIOError:
            return
        except OSError as error:
            self._give_up(error)
            return
        self._on_event()
        try:
            if flags & socket.MSG_TRUNC:
                raise MessageError(f"a packet of more than {LARGEST_PACKET} bytes")
            if packet:
                self._take(read_event(packet))
            else:
                self.end(ProcessLost(f"the {self._name} has ended"))
        except MessageError as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """The socket gave `error`."""
        log.error("the %s is ended: its socket gave %s", self._name, error)
        self.end(ProcessLost(f"the {self._name} has ended"))

    def _take(self, event: Event) -> None:
        """Raises `MessageError` if a payload cannot be decoded."""
        if isinstance(event, Forked):
            child = self._children.get(event.number)
            if child and not child.pid.done():
                child.pid.set_result(event.pid)
        elif isinstance(event, Killed):
            if child := self._children.get(event.number):
                child.dying = False
        elif isinstance(event, Ended):
            if child := self._children.pop(event.number, None):
                child.lose(event.status, ProcessLost(f"no {self._role} could be forked"))
        elif isinstance(event, Loaded):
            if not self.loaded.done():
                self.loaded.set_result(self._decode(event.payload))
        else:
            self.end(self._decode_error(event.payload))


def _retrieve(future: asyncio.Future[T]) -> None:
    """Take the exception, if there is one, so that asyncio does not complain if nobody waits."""
    if not future.cancelled():
        future.exception()

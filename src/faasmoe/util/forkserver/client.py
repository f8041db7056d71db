"""The client's end of a fork server, from the server's start to its end."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from faasmoe.errors import FaasmoeError, MessageError, ProcessLost
from faasmoe.util.forkserver.messages import (
    LARGEST_PACKET,
    Alive,
    Ended,
    Event,
    Fork,
    Forked,
    ForkFailed,
    Kill,
    Killed,
    Load,
    Loaded,
    LoadFailed,
    Order,
    Ping,
    pack,
    read_event,
)
from faasmoe.util.forkserver.order_queue import OrderQueue
from faasmoe.util.forkserver.server_process import ServerProcess

log = logging.getLogger(__name__)

T = TypeVar("T")

_REAP_SECONDS = 1.0


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
        spawn: Callable[[], ServerProcess],
        decode: Callable[[bytes], T],
        decode_error: Callable[[bytes], FaasmoeError],
        on_event: Callable[[Event], None] = lambda _: None,
        on_end: Callable[[FaasmoeError, int | None], None] = lambda *_: None,
    ) -> None:
        """`name`, `role`: nouns for the server and its children in errors.

        `on_event` is called with each event. `on_end` is called once when the server and all children have been ended,
        with the reason, and the exit status of a server that has ended by itself.
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
        self._process, self._socket = spawn()
        self._socket.setblocking(False)
        self._orders = OrderQueue(self._socket)
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
        """Have the server load what `payload` describes. Raises as `fork` does."""
        self._send(Load(payload))

    def fork(self, descriptors: Sequence[int], payload: bytes = b"") -> ForkedChild:
        """Have a child forked that owns copies of `descriptors`, of which there must be one.

        Raises `ProcessLost` if the server was ended, `OSError` if `payload` is too long, or if the order must wait and
        there are no descriptors for that. A child of a server that is just ending is lost with it.
        """
        child = ForkedChild(next(self._numbers))
        self._send(Fork(child.number, payload), descriptors)
        self._children[child.number] = child
        return child

    def kill(self, number: int) -> None:
        """Have a child killed. One that has ended is fine."""
        if child := self._children.get(number):
            child.dying = True
            self._send(Kill(number))

    def ping(self) -> None:
        """Have the server answer `Alive`. Raises `ProcessLost` if it was ended."""
        self._send(Ping())

    def end(self, error: FaasmoeError) -> None:
        """Kill the server and all its children. `error` is for those who wait. May be called twice."""
        self._end(error)

    def _end(self, error: FaasmoeError, *, by_itself: bool = False) -> None:
        if not self.running:
            return
        self._loop.remove_reader(self._socket)
        self._orders.close()
        self._socket.close()
        self._process.kill()  # the kernel kills its children with it
        status = None
        try:
            status = self._process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("the %s, process %d, was killed and is not gone yet", self._name, self._process.pid)
        if not self.loaded.done():
            self.loaded.set_exception(error)
        for child in self._children.values():
            child.lose(-signal.SIGKILL, error)
        self._children.clear()
        self._on_end(error, status if by_itself else None)

    def _send(self, order: Order, descriptors: Sequence[int] = ()) -> None:
        """Never blocks, and raises as `fork` does."""
        if not self.running:
            raise ProcessLost(f"the {self._name} has ended")
        packet = pack(order)
        if len(packet) > LARGEST_PACKET:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        try:
            self._orders.send(packet, descriptors)
        except BlockingIOError:
            self._loop.call_soon(self.end, ProcessLost(f"the {self._name} takes no orders"))
        except ConnectionError as error:  # `_hear` is about to hear the end
            log.debug("the %s takes no order: %s", self._name, error.strerror)

    def _hear(self) -> None:
        try:
            packet, _, flags, _ = self._socket.recvmsg(LARGEST_PACKET)
        except (BlockingIOError, ConnectionResetError):
            return  # a reset is told once, for orders that were not read; what was sent before it is still there
        except OSError as error:
            self._give_up(error)
            return
        if not packet:
            self._end(ProcessLost(f"the {self._name} has ended"), by_itself=True)
            return
        try:
            if flags & socket.MSG_TRUNC:
                raise MessageError(f"a packet of more than {LARGEST_PACKET} bytes")
            event = read_event(packet)
            self._take(event)
        except MessageError as error:
            self._give_up(error)
        else:
            self._on_event(event)

    def _give_up(self, error: Exception) -> None:
        """The socket gave `error`."""
        log.error("the %s is ended: its socket gave %s", self._name, error)
        self.end(ProcessLost(f"the {self._name} was ended: its socket gave {error}"))

    def _take(self, event: Event) -> None:
        """Raises `MessageError` if a payload cannot be decoded."""
        match event:
            case Forked():
                child = self._children.get(event.number)
                if child and not child.pid.done():
                    child.pid.set_result(event.pid)
            case ForkFailed():
                if child := self._children.pop(event.number, None):
                    child.lose(1, ProcessLost(f"no {self._role} could be forked: {event.cause}"))
            case Killed():
                if child := self._children.get(event.number):
                    child.dying = False
            case Ended():
                if child := self._children.pop(event.number, None):
                    child.lose(event.status, ProcessLost(f"the {self._role} has ended"))
            case Loaded():
                if not self.loaded.done():
                    self.loaded.set_result(self._decode(event.payload))
            case LoadFailed():
                self.end(self._decode_error(event.payload))
            case Alive():
                pass  # whoever pings hears it by `on_event`


def _retrieve(future: asyncio.Future[T]) -> None:
    """Take the exception, if there is one, so that asyncio does not complain if nobody waits."""
    if not future.cancelled():
        future.exception()

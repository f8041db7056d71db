"""One running copy of a function: a forked process that answers calls on a unix socket.

It starts blank, is told what to become, and ends by itself when it idles out or when the daemon drains it: the
daemon holds the other end of a socket pair, the lifeline, and shuts it. One thread waits for connections and for
the end, one more for each connection waits for calls.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import importlib
import logging
import mmap
import os
import select
import socket
import threading
import time
from _thread import start_new_thread
from collections.abc import Callable, Sequence
from contextlib import suppress

from faasmoe.errors import brief
from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.local.instance.connection import ServerConnection
from faasmoe.platforms.local.instance.serving import InstanceMemory, drain_calls
from faasmoe.platforms.local.protocol import wire
from faasmoe.platforms.local.protocol.failure import CallFailure
from faasmoe.platforms.local.protocol.frame import Status
from faasmoe.platforms.local.protocol.payloads import Duty, read_duty
from faasmoe.platforms.local.protocol.stats_page import InstanceStats, map_page

log = logging.getLogger(__name__)

# payload, shared memory or None, nanoseconds waited, and where to get room for the reply. It may have an attribute
# `compiled`: the addresses of a `Function` of c/serving/calls.h, and of its context.
Handle = Callable[[memoryview, memoryview | None, int, Callable[[int], Buffer]], Buffer]

_MOST_CONNECTIONS = 256
_STACK_BYTES = 1 << 20  # of a thread; they count against the sandbox's limit of memory
_DRAIN_NS = 30 * 10**9
_LONGEST_WAIT = 3600.0  # seconds, at a time: the kernel counts milliseconds in 31 bits
_FIRST_CALL = 5.0  # seconds that it waits for one, however short its keep-alive is


class NoRoom(Exception):
    """The system gives this process no more threads or descriptors."""


def _start_thread(work: Callable[[ServerConnection], None], caller: ServerConnection) -> None:
    """Have a thread do `work`. Raises `NoRoom`.

    Not by `threading.Thread`, which waits until the thread runs, and writes to memory that is still shared.
    """
    try:
        start_new_thread(work, (caller,))
    except RuntimeError as error:  # that is what Python makes of EAGAIN
        raise NoRoom from error


def resolve(handler: str) -> Callable[[str], Handle]:
    """The callable that `module:attribute` names."""
    module, _, attribute = handler.partition(":")
    loader: Callable[[str], Handle] = getattr(importlib.import_module(module), attribute)
    return loader


class Instance:
    """Answers calls until it is drained or idles out."""

    def __init__(self, duty: Duty, listener: socket.socket, lifeline: socket.socket, page: mmap.mmap) -> None:
        """`page`: where its record is."""
        self._duty = duty
        self._listener = listener
        self._lifeline = lifeline
        self._record = InstanceStats.from_buffer(page)
        self._memory = InstanceMemory.of(self._record, duty.concurrency, lifeline.fileno())
        self._lock = threading.Lock()
        self._callers: set[ServerConnection] = set()
        self._handle: Handle | None = None
        self._failure = b""  # why there is no handle

    @classmethod
    def assigned(cls, payload: bytes, descriptors: Sequence[int]) -> Instance:
        """The instance of an assignment (see `Duty`). Raises `MessageError`."""
        duty = read_duty(payload)
        listener, lifeline, table = descriptors
        page = map_page(table, duty.slot)
        os.close(table)  # the other instances' records are none of this one's business
        return cls(duty, socket.socket(fileno=listener), socket.socket(fileno=lifeline), page)

    def run(self) -> None:
        """Load the function and serve it. Returns when all calls are answered and no more will be taken."""
        self.serve()
        self._drain()

    def serve(self) -> None:
        """Load the function, and take connections until it is time to end. Raises `NoRoom`."""
        record = self._record
        record.forked = record.last_used = time.monotonic_ns()
        threading.stack_size(_STACK_BYTES)
        gc.disable()  # a function keeps no state, so it makes no cycles worth looking for
        artifact = os.fsdecode(self._duty.artifact)
        try:
            self._handle = resolve(self._duty.handler)(artifact)
            self._memory.function, self._memory.context = getattr(self._handle, "compiled", (None, None))
        except Exception as error:  # noqa: BLE001 - callers are told, whatever it is
            failure = f"{type(error).__name__}: {brief(error)}"
            log.error("function of %s cannot be loaded: %s", artifact, failure)
            self._failure = CallFailure.of(error).encoded()
        record.mapped = time.monotonic_ns()
        if record.report:
            self._tell()
        self._accept()

    def _accept(self) -> None:
        """Take connections until it is time to end."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._lifeline, select.POLLIN)
        while True:
            left = self._keep_alive_left()
            if left is not None and left <= 0:
                return
            for fd, _ in poll.poll(left and min(left, _LONGEST_WAIT) * 1000):
                if fd == self._lifeline.fileno():
                    return
                self._take()

    def _take(self) -> None:
        """Accept a connection, if the system has a descriptor for it. Raises `NoRoom`."""
        try:
            connection = self._listener.accept()[0]
        except OSError as error:
            log.debug("no connection: %s", error.strerror)
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise NoRoom from error
            return
        self._connect(connection)

    def _keep_alive_left(self) -> float | None:
        """Seconds; None if there is no end to it."""
        if self._duty.keep_alive is None:
            return None
        if self._record.in_flight:
            return self._duty.keep_alive or 1e-3
        patience = self._duty.keep_alive if self._record.invocations else max(self._duty.keep_alive, _FIRST_CALL)
        return patience - (time.monotonic_ns() - int(self._record.last_used)) / 1e9

    def _connect(self, connection: socket.socket) -> None:
        with self._lock:
            if len(self._callers) >= _MOST_CONNECTIONS:
                connection.close()
                return
            caller = ServerConnection(connection, self._memory)
            self._callers.add(caller)
        try:
            _start_thread(self._serve, caller)
        except NoRoom:
            with self._lock:
                self._callers.discard(caller)
            connection.close()  # its caller asks the daemon for another instance
            if not self._callers:
                raise

    def _serve(self, caller: ServerConnection) -> None:
        """One orchestrator's connection, until it closes."""
        caller.served_here()
        try:
            while caller.next_call():
                self._answer(caller)
        except (wire.Lost, ValueError) as error:  # an orchestrator went away or lied; others may still be there
            log.debug("connection ended: %s", error)
        finally:
            with self._lock:
                self._callers.discard(caller)
            caller.connection.close()

    def _answer(self, caller: ServerConnection) -> None:
        """A call that the compiled function, if there is one, leaves to the handler."""
        status, length = self._run(caller)
        caller.finish(status, length)
        if status == Status.UNLOADABLE:
            self._lifeline.shutdown(socket.SHUT_RDWR)  # wakes the main thread

    def _run(self, caller: ServerConnection) -> tuple[Status, int]:
        if self._handle is None:
            return caller.explained(Status.UNLOADABLE, self._failure)
        try:
            return caller.stored(self._handle(*caller.call(), caller.reserve))
        except Exception as error:  # noqa: BLE001 - one failed call must not end the instance
            return caller.explained(Status.FAILED, CallFailure.of(error).encoded())

    def _tell(self) -> None:
        """Have the daemon look at the record."""
        with suppress(OSError):  # it is going; so are we
            self._lifeline.send(b"d", socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Close what an instance has that does not run, and whose process goes on."""
        self._listener.close()
        self._lifeline.close()

    def _drain(self) -> None:
        """Finish what runs, refuse what is new."""
        self._listener.close()
        drain_calls(ctypes.addressof(self._memory), _DRAIN_NS)

"""One running copy of a function: a forked process that answers calls on a unix socket.

It starts blank, is told what to become, and ends by itself when it idles out or when the daemon drains it: the
daemon holds the other end of a socket pair, the lifeline, and shuts it. One thread waits for connections and for
the end, one more for each connection waits for calls.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import mmap
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from faasmoe.errors import brief
from faasmoe.platforms.base import Buffer
from faasmoe.platforms.busy_time import BusyTime
from faasmoe.platforms.local import frame, wire
from faasmoe.platforms.local.caller import Caller
from faasmoe.platforms.local.frame import INLINE, Answer, Header, Status
from faasmoe.platforms.local.record import Record, bucket_of, map_page
from faasmoe.platforms.local.sandbox import Sandbox

log = logging.getLogger(__name__)

# payload, shared memory or None, nanoseconds waited, and where to get room for the reply
Handle = Callable[[memoryview, memoryview | None, int, Callable[[int], Buffer]], Buffer]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MOST_CONNECTIONS = 256
_STACK_BYTES = 1 << 20  # of a thread; they count against the sandbox's limit of memory
_DRAIN_SECONDS = 30.0
_FIRST_CALL = 5.0  # seconds that it waits for one, however short its keep-alive is


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies, whatever kills that."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before we asked


def resolve(handler: str) -> Callable[[str], Handle]:
    """The callable that `module:attribute` names."""
    module, _, attribute = handler.partition(":")
    loader: Callable[[str], Handle] = getattr(importlib.import_module(module), attribute)
    return loader


@dataclass
class Duty:
    """What an instance is to be."""

    handler: str
    artifact: str
    keep_alive: float | None  # seconds; None: until it is drained
    concurrency: int
    listener: socket.socket
    lifeline: socket.socket
    record: Record
    page: mmap.mmap

    @classmethod
    def receive(cls, message: dict[str, Any], fds: Sequence[int]) -> Duty:
        """From the zygote's message: the descriptors are listener, lifeline and table of records."""
        listener, lifeline, table = fds
        page = map_page(table, message["slot"])
        os.close(table)  # the other instances' records are none of this one's business
        return cls(
            message["handler"],
            message["artifact"],
            message["keep_alive"],
            message["concurrency"],
            socket.socket(fileno=listener),
            socket.socket(fileno=lifeline),
            Record.from_buffer(page),
            page,
        )


class Instance:
    """Answers calls until it is drained or idles out."""

    def __init__(self, duty: Duty) -> None:
        self._duty = duty
        self._record = duty.record
        # a lock is quicker than a semaphore of one
        self._slots = threading.Lock() if duty.concurrency == 1 else threading.Semaphore(duty.concurrency)
        self._lock = threading.Lock()  # of the record and of the four below
        self._busy = BusyTime()
        self._connections: dict[int, socket.socket] = {}
        self._answering = 0  # calls received whose replies are not sent
        self._silent = threading.Condition(self._lock)  # there are none
        self._draining = False
        self._in_flight = 0  # as in the record, but read faster
        self._latency = duty.record.latency
        self._handle: Handle | None = None
        self._failure = ""

    def run(self) -> None:
        """Load the function and serve it. Returns when all calls are answered and no more will be taken."""
        record = self._record
        record.forked = record.last_used = time.monotonic_ns()
        threading.stack_size(_STACK_BYTES)
        gc.disable()  # a function keeps no state, so it makes no cycles worth looking for
        try:
            self._handle = resolve(self._duty.handler)(self._duty.artifact)
        except Exception as error:  # noqa: BLE001 - callers are told, whatever it is
            self._failure = f"{type(error).__name__}: {brief(error)}"
            log.error("function of %s cannot be loaded: %s", self._duty.artifact, self._failure)
        record.mapped = time.monotonic_ns()
        if record.report:
            self._tell()
        self._accept()
        self._drain()

    def _accept(self) -> None:
        """Take connections until it is time to end."""
        poll = select.poll()
        poll.register(self._duty.listener, select.POLLIN)
        poll.register(self._duty.lifeline, select.POLLIN)
        while True:
            left = self._keep_alive_left()
            if left is not None and left <= 0:
                return
            for fd, _ in poll.poll(left and left * 1000):
                if fd == self._duty.lifeline.fileno():
                    return
                self._connect(self._duty.listener.accept()[0])

    def _keep_alive_left(self) -> float | None:
        """Seconds; None if there is no end to it."""
        if self._duty.keep_alive is None:
            return None
        with self._lock:
            if self._record.in_flight:
                return self._duty.keep_alive or 1e-3
            patience = (
                self._duty.keep_alive if self._record.invocations else max(self._duty.keep_alive, _FIRST_CALL)
            )
            return patience - (time.monotonic_ns() - int(self._record.last_used)) / 1e9

    def _connect(self, connection: socket.socket) -> None:
        with self._lock:
            if len(self._connections) >= _MOST_CONNECTIONS:
                connection.close()
                return
            self._connections[connection.fileno()] = connection
        threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """One orchestrator's connection, until it closes."""
        memory = mmap.mmap(-1, frame.BUFFER)  # pages that no call needs are never there
        caller = Caller(connection, memoryview(memory), threading.get_native_id())
        try:
            while True:
                self._answer(caller, *frame.receive_call(connection, caller.buffer))
        except (wire.Lost, ValueError) as error:  # an orchestrator went away or lied; others may still be there
            log.debug("connection ended: %s", error)
        finally:
            with self._lock:
                self._connections.pop(connection.fileno(), None)
            connection.close()

    def _answer(self, caller: Caller, header: Header, inline: memoryview, fds: list[int]) -> None:
        arrived = time.monotonic_ns()
        if not self._begin(arrived):
            frame.close_all(fds)
            frame.send_reply(caller.connection, Answer(Status.DRAINING), ())
            return
        try:
            with self._slots:
                began, begun = self._start()
                try:
                    payload, shared = caller.open(header, inline, fds)
                    status, reply = self._run(caller, payload, shared, began - arrived)
                finally:  # before the reply: whoever has it finds the instance idle and the call counted
                    crowded, busy = self._end(arrived, begun)
            rest = () if status == Status.STORED else (reply,)
            frame.send_reply(caller.connection, Answer(status, crowded, len(reply), caller.thread, busy), rest)
        finally:
            self._answered()
        if status == Status.UNLOADABLE:
            self._duty.lifeline.shutdown(socket.SHUT_RDWR)  # wakes the main thread

    def _begin(self, arrived: int) -> bool:
        """Note a call. Returns whether it may run."""
        record = self._record
        with self._lock:
            if self._draining:
                return False
            self._answering += 1
            if not self._in_flight:
                record.busy_since = arrived
            self._in_flight = record.in_flight = self._in_flight + 1
            return True

    def _start(self) -> tuple[int, int]:
        """A call has its slot. Returns since when, and what `BusyTime.end` wants to know."""
        with self._lock:
            now = time.monotonic_ns()
            return now, self._busy.begin(now)

    def _run(
        self, caller: Caller, payload: memoryview, shared: memoryview | None, waited: int
    ) -> tuple[Status, Buffer]:
        if self._handle is None:
            return Status.UNLOADABLE, self._failure.encode()
        try:
            return caller.stored(self._handle(payload, shared, waited, caller.reserve))
        except Exception as error:  # noqa: BLE001 - one failed call must not end the instance
            return Status.FAILED, f"{type(error).__name__}: {brief(error)}".encode()

    def _end(self, arrived: int, begun: int) -> tuple[bool, int]:
        """Count a call that has run. Returns whether more waited than can run, and its share of the busy time."""
        record = self._record
        with self._lock:
            now = time.monotonic_ns()
            busy = self._busy.end(now, begun)
            record.busy += busy
            if not record.invocations:
                record.touched, record.first_call = now, now - arrived
            record.invocations += 1
            self._latency[bucket_of(now - arrived)] += 1
            record.last_used = now
            crowded = self._in_flight > self._duty.concurrency
            self._in_flight = record.in_flight = self._in_flight - 1
            return crowded, busy

    def _answered(self) -> None:
        with self._lock:
            self._answering -= 1
            if self._draining and not self._answering:
                self._silent.notify_all()
        if self._record.report:
            self._tell()

    def _tell(self) -> None:
        """Have the daemon look at the record."""
        with suppress(OSError):  # it is going; so are we
            self._duty.lifeline.send(b"d", socket.MSG_DONTWAIT)

    def _drain(self) -> None:
        """Finish what runs, refuse what is new."""
        self._duty.listener.close()
        with self._lock:
            self._draining = True
            self._record.draining = 1
            self._tell()
            self._silent.wait_for(lambda: not self._answering, _DRAIN_SECONDS)


def become(message: dict[str, Any], fds: Sequence[int]) -> None:
    """What a blank process does with the duty it is given."""
    Instance(Duty.receive(message, fds)).run()


def _nothing(_: str) -> Handle:
    return lambda *_: b""


def rehearse() -> None:
    """Live a whole life once: what every instance writes to on its way becomes this process's own beforehand."""
    table, listener = os.memfd_create("faasmoe-rehearsal", os.MFD_CLOEXEC), socket.socket(socket.AF_UNIX)
    os.ftruncate(table, mmap.PAGESIZE)
    listener.bind("")  # a name of the kernel's choice
    listener.listen(1)
    orders, order_end = socket.socketpair()
    lifeline, lifeline_end = socket.socketpair()
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(listener.getsockname())
    order = {"slot": 0, "handler": f"{__name__}:_nothing", "artifact": "", "keep_alive": 60.0, "concurrency": 1}
    with orders, order_end, lifeline, caller:
        wire.send(orders, order, [listener.detach(), lifeline_end.detach(), table])
        os.close(table)
        frame.send_call(caller, frame.pack_call(Header(INLINE, 0, 0, 0, 0, 0)), ())
        thread = threading.Thread(target=lambda: become(*wire.receive(order_end)))
        thread.start()
        frame.receive_reply(caller, memoryview(bytearray(frame.BUFFER)))
        lifeline.shutdown(socket.SHUT_WR)
        thread.join()


def child_main(
    parent: int, assignment: socket.socket, sandbox: Sandbox, warm_up: Sequence[Callable[[], None]]
) -> None:
    """What the zygote's child does after the fork: prepare, wait for a duty, do it. Does not return."""
    status = 1
    try:
        die_with_parent(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the server to handle
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        rehearse()
        for function in warm_up:
            function()
        sandbox.enter()
        with assignment:
            message, fds = wire.receive(assignment)
        become(message, fds)
        status = 0
    except wire.Lost:
        status = 0  # the zygote has no use for this one
    except Exception as error:  # noqa: BLE001 - the last frame of this process
        log.error("instance %d ended: %s: %s", os.getpid(), type(error).__name__, brief(error))
    finally:
        os._exit(status)  # no destructors of the zygote's objects

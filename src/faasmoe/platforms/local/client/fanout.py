"""Fan-out: sends a batch of calls to instances, collects the replies in any order, and tries lost calls again."""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

from faasmoe.errors import DeadlineExceeded, FunctionError, PlatformError
from faasmoe.platforms.base import Call, Replies
from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.local.client.call_buffers import CallBuffers
from faasmoe.platforms.local.client.connections import Connection, Connections
from faasmoe.platforms.local.client.control import AGAIN_SECONDS, Activator, error_of, no_descriptors
from faasmoe.platforms.local.client.pending_call import TICK, AwakeTime, PendingCall, too_late
from faasmoe.platforms.local.client.placement import ANY, assign, relieve
from faasmoe.platforms.local.client.waiting_calls import EARLY, WaitingCalls
from faasmoe.platforms.local.protocol import frame
from faasmoe.platforms.local.protocol.failure import read_failure
from faasmoe.platforms.local.protocol.frame import Status
from faasmoe.platforms.local.protocol.messages import NAME, DeadlinePassed, NotActivated
from faasmoe.platforms.local.protocol.wire import Lost

_assign = lru_cache(4096)(assign)  # the same calls come again and again
_sched_getcpu: Callable[[], int] = ctypes.CDLL(None).sched_getcpu


class Fanout:
    """Runs batches of calls, one at a time. For one thread."""

    def __init__(self, activator: Activator) -> None:
        self.call_buffers = CallBuffers()
        self._activator = activator
        self._waiting = WaitingCalls(activator)
        self._connections = Connections()
        self._cores = tuple(sorted(os.sched_getaffinity(0)))
        self._buffers: list[memoryview] = []  # for the replies of a batch
        self._pending: dict[int, PendingCall] = {}  # by descriptor: sent
        self._asked = self._waiting.calls  # by index: an instance was asked for
        self._time = AwakeTime()

    def run(
        self,
        calls: Sequence[Call],
        deadline: float,
        shared: Buffer | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Replies:
        """See `Platform.invoke_many`."""
        encoded_calls = self.call_buffers.lay_out(calls, shared)
        while len(self._buffers) < len(calls):
            self._buffers.append(memoryview(mmap.mmap(-1, frame.BUFFER)))
        replies = Replies(len(calls))
        try:
            pending = [PendingCall(i, call.function, encoded_calls[i], call.work) for i, call in enumerate(calls)]
            self._dispatch(pending, ANY if meanwhile else _sched_getcpu())
            if meanwhile is not None:
                self._request(max(0.0, deadline - time.monotonic()))
                meanwhile()
            self._wait(deadline, replies)
        except BaseException as error:
            self._abandon(isinstance(error, DeadlineExceeded))
            raise
        return replies

    def _dispatch(self, calls: Sequence[PendingCall], own_core: int) -> None:
        """Send calls over idle connections, spread over the cores; ask for instances where there are none.

        `own_core`: the core on which this thread will wait, or `ANY` if it has work in the meantime.
        """
        warm: list[tuple[PendingCall, Connection]] = []
        for pending in calls:
            if connection := self._connections.take(pending.function):
                warm.append((pending, connection))
            else:
                self._waiting.add(pending, None)
        bound = tuple([connection.core for _, connection in warm])
        seconds = tuple([connection.seconds(pending.work) for pending, connection in warm])
        cores = _assign(bound, seconds, self._cores, own_core)
        # first the calls that must wake a core; those on our own core run when this thread waits
        for there in (False, True):
            for core, (pending, connection) in zip(cores, warm, strict=True):
                if (core == own_core) == there:
                    connection.bind(core, self._cores)
                    if not self._send(pending, connection):
                        self._waiting.add(pending, connection.path)

    def _wait(self, deadline: float, replies: Replies) -> None:
        """Wait until all calls are answered.

        When nothing but replies can come, waiting for one after the other saves system calls, and beginning with
        the last saves our core being woken while others there have not run yet. After the patience of one
        connection all are looked at, so that a lost instance is replaced while slower ones are at work, and a core
        that has fallen idle takes a call from one that has several.
        """
        patient, looked = True, False
        while self._pending or self._asked:
            if patient and not self._asked:
                patient = self._collect(next(reversed(self._pending)), replies)
            else:
                if not looked:
                    self._time.begin(self.call_buffers.laid_out)
                    looked = True
                self._relieve()
                self._progress(deadline, replies)

    def _relieve(self) -> None:
        connections = [pending.connection for pending in self._pending.values() if pending.connection]
        bound = [connection.core for connection in connections]
        for connection, core in zip(connections, relieve(bound, self._cores), strict=True):
            connection.bind(core, self._cores)

    def _send(self, pending: PendingCall, connection: Connection) -> bool:
        encoded = pending.encoded
        fds = self.call_buffers.introduce(connection.generation) if encoded.uses_segments else ()
        try:
            head = frame.pack_call(encoded.header, bool(fds))
            frame.send_call(connection.socket, head, encoded.inline, fds)
        except Lost as error:
            pending.cause = f"its instance went away: {error}"
            connection.close()
            return False
        if fds:
            connection.generation = self.call_buffers.generation
        pending.connection = connection
        self._pending[connection.fd] = pending
        return True

    def _progress(self, deadline: float, replies: Replies) -> None:
        """Ask for instances, then take the activations or replies that have come. Those are never too late."""
        left = self._left(deadline)
        self._request(max(0.0, left))
        poll = select.poll()
        for fd in self._pending:
            poll.register(fd, select.POLLIN)
        if self._waiting.fileno() >= 0:
            poll.register(self._waiting.fileno(), select.POLLIN)
        planned = max(0.0, min(left, AGAIN_SECONDS if self._waiting.unasked else TICK))
        ready = poll.poll(planned * 1000)
        passed = self._time.pass_(planned)
        if not ready and self._left(deadline) <= 0:
            raise self._too_late()
        for fd, _ in ready:
            if fd == self._waiting.fileno():
                self._activated(deadline)
            else:
                self._collect(fd, replies)
        for pending in self._pending.values():
            if pending.connection and pending.tires(pending.connection, passed):
                self._waiting.suspect(pending)

    def _request(self, left: float) -> None:
        if not self._waiting.request(left):
            self._connections.make_way()

    def _left(self, deadline: float) -> float:
        """Seconds until the deadline; those in which this process was frozen do not count."""
        return deadline + self._time.frozen - time.monotonic()

    def _activated(self, deadline: float) -> None:
        """Take an activation: send the call to its instance, or raise the error of a refusal."""
        activation = self._waiting.answer()
        if activation is None:
            return
        pending, answer = activation
        left = max(1e-3, self._left(deadline))
        if isinstance(answer, NotActivated):
            if isinstance(answer.error, DeadlinePassed) and left > EARLY:  # it did not know that we were frozen
                self._waiting.add(pending, None)
                return
            more = f"; {pending.cause}" if pending.cause else ""
            raise error_of(answer.error, pending.function, pending.attempts, more)
        if answer.scarce:  # no fault of the function, if it ends for that
            pending.attempts = max(1, pending.attempts - 1)
        if answer.last_end and pending.attempts > 1:
            pending.cause = f"its last instance was lost: {answer.last_end}"
        try:
            connection = Connection(answer.path, answer.scalable, answer.memory, left)
        except OSError as error:
            pending.cause = f"its instance cannot be reached: {error.strerror or error}"
            if no_descriptors(error):
                self._connections.make_way()
            elif not isinstance(error, BlockingIOError):  # which says that too many wait for it already
                self._again(pending, answer.path)  # the instance ended after its activation
                return
            select.select([], [], [], AGAIN_SECONDS)
            self._waiting.add(pending, None)
        else:
            self._connections.count_opened()
            if not self._send(pending, connection):
                self._again(pending, connection.path)

    def _collect(self, fd: int, replies: Replies) -> bool:
        """Take the reply to one call, or try it again if its instance is lost. False: neither came in time."""
        pending = self._pending[fd]
        connection, buffer = pending.connection, self._buffers[pending.index]
        if connection is None:
            raise PlatformError(NAME, pending.function, "a call without connection was sent")  # cannot be
        try:
            answer, end = frame.receive_reply(connection.socket, buffer)
        except BlockingIOError:
            return False
        except Lost as error:
            del self._pending[fd]
            connection.close()
            pending.cause = pending.cause or f"its instance was lost: {error}"
            self._again(pending, connection.path)
            return True
        del self._pending[fd]
        connection.thread = answer.thread
        if answer.status > Status.STORED:
            connection.close()
            self._refused(pending, connection, answer.status, bytes(buffer[frame.HEADER : end]))
            return True
        stored = answer.status == Status.STORED
        at = pending.index
        replies.data[at] = (
            self.call_buffers.stored(pending.encoded, answer.length) if stored else buffer[frame.HEADER : end]
        )
        busy = answer.busy / 1e9
        replies.busy[at], replies.memory[at] = busy, connection.memory
        connection.learn(busy, pending.work)
        if answer.crowded and connection.scalable:
            connection.close()  # next time there may be an instance with less to do
        else:
            self._connections.keep(pending.function, connection)
        return True

    def _refused(self, pending: PendingCall, connection: Connection, status: int, reply: bytes) -> None:
        if status != Status.DRAINING:
            failure = read_failure(reply)
            if status == Status.FAILED:
                raise FunctionError(pending.function, failure.kind, failure.message)
            pending.not_loaded(str(failure))
        self._waiting.add(pending, connection.path)

    def _again(self, pending: PendingCall, lost: str) -> None:
        """Try a call on another instance, unless it was tried too often."""
        pending.try_again()
        self._waiting.add(pending, lost)

    def _too_late(self) -> DeadlineExceeded:
        poll = select.poll()
        for fd in self._pending:
            poll.register(fd, select.POLLIN)
        answered = {fd for fd, _ in poll.poll(0)}  # but not collected while another was waited for
        waiting = [pending for fd, pending in self._pending.items() if fd not in answered]
        return too_late([*waiting, *self._asked.values()] or list(self._pending.values()))

    def _abandon(self, late: bool) -> None:
        """End a batch without its replies: those that still come must not be taken for later ones."""
        for pending in self._pending.values():
            if pending.connection:
                pending.connection.close()
                if late:
                    waited = time.monotonic() - self.call_buffers.laid_out
                    self._activator.report_stuck(pending.connection.path, 0.9 * waited)
        self._pending.clear()
        self._waiting.abandon()
        self.call_buffers.renew()

    def close(self) -> None:
        """Close everything. May be called twice."""
        self._connections.close()
        self._activator.close()
        self.call_buffers.renew()

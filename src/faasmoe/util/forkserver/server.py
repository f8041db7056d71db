"""The fork server's process: it obeys its client over a socket that it inherits, and ends when that closes.

Every child begins as a worker that waits for an assignment. Some may be forked ahead of time, so that an order does not
wait for a fork, nor for what a worker does before it asks for its assignment.

python -m MODULE DESCRIPTOR PARENT, where MODULE calls `run`
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from faasmoe.errors import MessageError
from faasmoe.util import logs
from faasmoe.util.backoff import Backoff
from faasmoe.util.failure_log import FailureLog, reason_of
from faasmoe.util.forkserver.connection import ClientLeft, Connection, close_all
from faasmoe.util.forkserver.messages import Alive, Ended, Fork, Forked, ForkFailed, Kill, Killed, Order, Ping
from faasmoe.util.forkserver.worker import (
    Assignment,
    Worker,
    fork_worker,
    no_descriptors,
    wait_for_assignment,
)
from faasmoe.util.liveness import ReadState, read_state
from faasmoe.util.processes import Children, die_with_parent, leave_signals_to_parent, set_name

log = logging.getLogger(__name__)

_CALM = 5e-3  # seconds: about as long as a child takes to begin its work, which a fork beside it would slow down
_PAUSES = (0.1, 5.0)  # seconds before the next worker is forked ahead after one that failed: at first, and at most

# A child's work. It gets its assignment from the function that it is given (see `wait_for_assignment`), when it is
# prepared for it, and returns the exit status.
Work = Callable[[Callable[[], Assignment]], int]


class ForkServer:
    """Has a child do `work` for each `Fork`, reaps children, and tells the client about both."""

    def __init__(
        self,
        connection: Connection,
        role: str,
        work: Work,
        *,
        prefork: int = 0,
        settle: Callable[[], None] | None = None,
        fork: Callable[[Callable[[Connection], None]], Worker] = fork_worker,
        kill: Callable[[int, int], None] = os.kill,
        read: ReadState = read_state,
        children: Children | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """`role`: the children's name in the log and in the process table. `prefork`: workers to be forked ahead.

        `settle` does once what later children gain by, as soon as the first children have their assignments.
        """
        self._connection = connection
        self._role = role
        self._work = work
        self._prefork = prefork
        self._settle = settle
        self._fork_worker = fork
        self._kill_process = kill
        self._read = read
        self._waiting: list[Worker] = []
        self._numbers: dict[int, int] = {}  # process id to number, of children with an assignment
        self._children = children or Children()
        self._backoff = backoff or Backoff(*_PAUSES)
        self._failures = FailureLog(log)

    def serve(self) -> None:
        """Run until `ClientLeft`, or `MessageError` if a packet is no order."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(self._children, select.POLLIN)
        while True:
            ready = poll.poll(self._pause())
            if not ready:  # orders come before workers that are forked ahead
                self._fork_ahead()
            for fd, _ in ready:
                if fd == self._children.fileno():
                    self._reap()
                else:
                    self._obey(*self._connection.receive())

    def _pause(self) -> float | None:
        """Milliseconds without an order or end before a worker is forked ahead. None: enough wait."""
        return None if len(self._waiting) >= self._prefork else 1000 * max(_CALM, self._backoff.left)

    def _fork_ahead(self) -> None:
        if self._settle and self._numbers:
            self._settle()
            self._settle = None
        try:
            self._waiting.append(self._new_worker())
        except OSError as error:
            self._failures.failed(f"no {self._role} can be forked ahead", error)
            self._backoff.failed()

    def _obey(self, order: Order, fds: list[int]) -> None:
        try:
            if isinstance(order, Fork):
                self._fork(order, fds)
            elif isinstance(order, Kill):
                for pid in [pid for pid, number in self._numbers.items() if number == order.number]:
                    self._kill_process(pid, signal.SIGKILL)  # not reaped yet, so that its id is nobody else's
                self._connection.send(Killed(order.number))
            elif isinstance(order, Ping):
                self._kill_hanging()
                self._connection.send(Alive())
            else:
                raise MessageError(f"{type(order).__name__}, which must be the first order")
        finally:
            close_all(fds)

    def _fork(self, order: Fork, fds: list[int]) -> None:
        try:
            pid = self._assign(order, fds)
        except OSError as error:
            self._failures.failed(f"no {self._role} can be forked", error)
            self._connection.send(ForkFailed(order.number, reason_of(error)))
            return
        self._numbers[pid] = order.number
        self._connection.send(Forked(order.number, pid))

    def _assign(self, order: Fork, fds: list[int]) -> int:
        """Hand an order to a worker that waits, or to a new one. Returns its process id. Raises `OSError`."""
        if not fds:
            raise no_descriptors()
        while self._waiting:
            worker = self._waiting.pop(0)
            with suppress(OSError):  # it was killed, and will be reaped
                worker.assign(order, fds)
                return worker.pid
        worker = self._new_worker(fds)
        worker.assign(order, fds)
        return worker.pid

    def _kill_hanging(self) -> None:
        """Kill workers that hang while they wait. The client asks for this at regular times."""
        for worker in self._waiting:
            if cause := worker.judge.check(self._read(worker.pid, False), owes=False):
                self._failures.failed(f"a waiting {self._role} is killed", cause)
                self._kill_process(worker.pid, signal.SIGKILL)

    def _new_worker(self, fds: Sequence[int] = ()) -> Worker:
        """`fds`: descriptors that the child has copies of and that are not its own. Raises `OSError`."""
        return self._fork_worker(partial(self._live, os.getpid(), fds))

    def _live(self, parent: int, fds: Sequence[int], channel: Connection) -> None:
        """The child's whole life. Does not return."""
        status = 1
        try:
            die_with_parent(parent)
            self._children.leave()
            self._connection.close()
            for sibling in self._waiting:
                sibling.close()
            close_all(fds)  # its own come with its assignment
            set_name(self._role)
            logs.rename(self._role)
            status = self._work(partial(wait_for_assignment, channel))
        except ClientLeft:
            status = 0  # the server has no use for this one
        except Exception:  # the last frame of this process
            log.exception("the %s has failed", self._role)
        finally:
            os._exit(status)  # no destructors of the server's objects

    def _reap(self) -> None:
        for pid, status in self._children.ended():
            for worker in [worker for worker in self._waiting if worker.pid == pid]:
                self._waiting.remove(worker)
                worker.close()
                self._backoff.failed()
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

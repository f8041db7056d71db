"""The gateway's hold on one process that loads the model and forks orchestrators."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import subprocess
from contextlib import suppress
from functools import partial

from faasmoe.errors import EngineStopped, FaasmoeError, MessageError, ProcessLost
from faasmoe.protocol.config import About
from faasmoe.protocol.messages import (
    LARGEST_PACKET,
    Ended,
    Fork,
    Forked,
    FromTemplate,
    Kill,
    Killed,
    Prepared,
    Start,
    error_of,
    pack,
    read_template_answer,
)
from faasmoe.util import processes
from faasmoe.util.patience import Patience, SilenceLimits, vitals

log = logging.getLogger(__name__)

_LOAD_SECONDS = 3600.0  # a large model is quantised, or its dense part converted, from a slow disk
_LOADING = SilenceLimits(
    stopped=3.0, asleep=_LOAD_SECONDS, working=_LOAD_SECONDS
)  # it says nothing until it is done
_ORDERED = SilenceLimits(stopped=1.0, asleep=5.0, working=10.0)  # to fork, or to kill, which is done at once
_REAP_SECONDS = 1.0
_STDERR = 2
# no threads before forks; an arena a thread would be memory that nobody finds again
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "1",
}


class Orchestrator:
    """One that the template was told to fork."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.pid: asyncio.Future[int] = loop.create_future()
        self.ended: asyncio.Future[int] = loop.create_future()  # exit status, or minus the signal that killed it
        self.dying = False  # it was ordered to be killed, and has not been
        self.pid.add_done_callback(lambda pid: pid.cancelled() or pid.exception())  # perhaps nobody waits

    @property
    def awaited(self) -> bool:
        """Whether the template owes an answer about it."""
        return not self.pid.done() or self.dying

    def lose(self, status: int, error: FaasmoeError) -> None:
        """It has ended with `status`; who still waits for its start gets `error`."""
        if not self.pid.done():
            self.pid.set_exception(error)
        if not self.ended.done():
            self.ended.set_result(status)


class TemplateProcess:
    """A template from its start to its end. For one asyncio loop. Raises `OSError` if it cannot be started.

    `about` gets what is known of the model once that is loaded, or the error that is in the way.
    """

    def __init__(self, start: Start) -> None:
        self.about: asyncio.Future[About] = asyncio.get_running_loop().create_future()
        self.about.add_done_callback(lambda about: about.cancelled() or about.exception())  # perhaps nobody waits
        self._orchestrators: dict[int, Orchestrator] = {}  # by number, until they have ended
        self._numbers = itertools.count()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = _spawn(theirs)
            except BaseException:
                self._socket.close()
                raise
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._hear)
        self._expect(_LOADING)
        self._ticking = self._loop.call_later(self._patience.seconds, self._tick)
        with suppress(EngineStopped):  # it has ended already, which is heard of soon
            self._send(start)

    @property
    def running(self) -> bool:
        """Whether it has not been ended."""
        return self._socket.fileno() >= 0

    async def fork(self, connection: socket.socket) -> tuple[int, int, asyncio.Future[int]]:
        """Have an orchestrator forked that speaks through `connection`.

        Returns its number, process id, and the future of its exit status. Raises `EngineStopped`.
        """
        number, orchestrator = next(self._numbers), Orchestrator()
        self._send(Fork(number), connection.fileno())
        self._owes()
        self._orchestrators[number] = orchestrator
        return number, await asyncio.shield(orchestrator.pid), orchestrator.ended

    def kill(self, number: int) -> None:
        """Have an orchestrator killed that does not end by itself. One that has ended is fine."""
        if orchestrator := self._orchestrators.get(number):
            self._owes()
            orchestrator.dying = True
            with suppress(EngineStopped):  # then it goes with the template
                self._send(Kill(number))

    def end(self, error: FaasmoeError) -> None:
        """Kill it, and with it whatever it has forked. `error` is for those who wait. May be called twice."""
        if not self.running:
            return
        self._ticking.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._process.kill()  # the kernel kills its children with it
        try:
            self._process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("process %d was killed, and is not gone yet", self._process.pid)
        if not self.about.done():
            self.about.set_exception(error)
        for orchestrator in self._orchestrators.values():
            orchestrator.lose(-signal.SIGKILL, error)
        self._orchestrators.clear()

    def _send(self, order: Start | Fork | Kill, *descriptors: int) -> None:
        """Raises `EngineStopped` if the template is gone or takes no orders."""
        if not self.running:
            raise ProcessLost("the process that forks orchestrators has ended")
        try:
            socket.send_fds(self._socket, [pack(order)], descriptors)
        except BlockingIOError:  # orders that it has not read fill the socket
            self.end(ProcessLost("the process that forks orchestrators takes no orders"))
            raise ProcessLost("the process that forks orchestrators takes no orders") from None
        except OSError as error:
            raise ProcessLost(f"the process that forks orchestrators takes no orders: {error.strerror}") from error

    def _owes(self) -> None:
        """An order is given: its answer is waited for from now on, unless another was waited for already."""
        if not self._awaited():
            self._expect(_ORDERED)

    def _expect(self, limits: SilenceLimits) -> None:
        self._patience = Patience(partial(vitals, self._process.pid), limits)

    def _awaited(self) -> bool:
        return not self.about.done() or any(each.awaited for each in self._orchestrators.values())

    def _tick(self) -> None:
        self._ticking = self._loop.call_later(self._patience.seconds, self._tick)
        if self._awaited() and (lost := self._patience.tick()):
            log.error("the process that forks orchestrators %s", lost)
            self.end(ProcessLost(f"the process that forks orchestrators {lost}"))

    def _hear(self) -> None:
        try:
            packet = self._socket.recv(LARGEST_PACKET)
            message = read_template_answer(packet) if packet else None
        except BlockingIOError:
            return
        except (OSError, MessageError) as error:
            log.error("from the process that forks orchestrators: %s", error)
            message = None
        self._patience.heard()
        if message is None:
            self.end(ProcessLost("the process that forks orchestrators has ended"))
        else:
            self._take(message)

    def _take(self, message: FromTemplate) -> None:
        if isinstance(message, Forked):
            orchestrator = self._orchestrators.get(message.number)
            if orchestrator and not orchestrator.pid.done():
                orchestrator.pid.set_result(message.pid)
        elif isinstance(message, Killed):
            if orchestrator := self._orchestrators.get(message.number):
                orchestrator.dying = False
        elif isinstance(message, Ended):
            if orchestrator := self._orchestrators.pop(message.number, None):
                orchestrator.lose(message.status, ProcessLost("no orchestrator could be forked"))
        elif isinstance(message, Prepared):
            if not self.about.done():
                self.about.set_result(message.about)
        else:
            self.end(error_of(message.error))


def _spawn(connection: socket.socket) -> subprocess.Popen[bytes]:
    """Raises `OSError`."""
    return processes.start(
        "faasmoe.orchestrator.template",
        [str(connection.fileno()), str(os.getpid())],
        stdout=_STDERR,  # what a library prints must not get among our own output
        descriptors=[connection.fileno()],
        more=ENVIRONMENT,
    )

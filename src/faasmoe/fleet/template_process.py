"""One template process, from its start to its end."""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial

from faasmoe.errors import FaasmoeError, ProcessLost
from faasmoe.protocol.config import About
from faasmoe.protocol.errors import error_of
from faasmoe.protocol.messages import Start, encode, read_about, read_failure
from faasmoe.util.forkserver.client import ForkServerClient
from faasmoe.util.forkserver.server_process import spawn
from faasmoe.util.liveness import TICK, HeartbeatMonitor, SilenceLimits
from faasmoe.util.processes import ROLE

log = logging.getLogger(__name__)

_LOAD_SECONDS = 3600.0  # a large model is quantised, or its dense part converted, from a slow disk
# a template says nothing until the model is loaded
_LOADING = SilenceLimits(stopped=3.0, asleep=_LOAD_SECONDS, working=_LOAD_SECONDS)
_ORDERED = SilenceLimits(stopped=1.0, asleep=5.0, working=10.0)  # to fork, or to kill, which is done at once
_MODULE = "faasmoe.orchestrator.template"
# no threads before forks; an arena a thread would be memory that nobody finds again
ENVIRONMENT = {
    ROLE: "template",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "1",
}


class TemplateProcess:
    """A template from its start to its end. For one asyncio loop. Raises `OSError` if it cannot be started.

    `about` gets the model's description once the model is loaded, or the error that is in the way.
    """

    def __init__(self, start: Start, monitor: HeartbeatMonitor | None = None) -> None:
        """`monitor` tells when the template has been silent for too long while it owes an answer."""
        self._monitor = monitor or HeartbeatMonitor()
        self._server = ForkServerClient(
            name="template",
            role="orchestrator",
            spawn=partial(spawn, _MODULE, ENVIRONMENT),
            decode=read_about,
            decode_error=lambda payload: error_of(read_failure(payload)),
            on_event=lambda _: self._monitor.beat(),
        )
        self.about: asyncio.Future[About] = self._server.loaded
        self._loop = asyncio.get_running_loop()
        self._monitor.watch(self.pid)
        self._monitor.expect(_LOADING)
        self._ticking = self._loop.call_later(TICK, self._tick)
        self._server.load(encode(start))

    @property
    def pid(self) -> int:
        """Process id of the template."""
        return self._server.pid

    @property
    def running(self) -> bool:
        """Whether the template has not been ended."""
        return self._server.running

    async def fork(self, connection: socket.socket) -> tuple[int, int, asyncio.Future[int]]:
        """Have an orchestrator forked that speaks through `connection`.

        Returns its number, process id, and the future of its exit status. Raises `EngineStopped`.
        """
        self._owes()
        child = self._server.fork([connection.fileno()])
        return child.number, await asyncio.shield(child.pid), child.ended

    def kill(self, number: int) -> None:
        """Have an orchestrator killed that does not end by itself. One that has ended is fine."""
        self._owes()
        self._server.kill(number)

    def end(self, error: FaasmoeError) -> None:
        """Kill the template and all orchestrators. `error` is for those who wait. May be called twice."""
        self._ticking.cancel()
        self._server.end(error)

    def _owes(self) -> None:
        """An order is given: its answer is waited for from now on, unless another was waited for already."""
        if not self._server.awaited:
            self._monitor.expect(_ORDERED)

    def _tick(self) -> None:
        if not self.running:
            return
        self._ticking = self._loop.call_later(TICK, self._tick)
        if self._server.awaited and (lost := self._monitor.tick()):
            log.error("the template %s", lost)
            self.end(ProcessLost(f"the template {lost}"))

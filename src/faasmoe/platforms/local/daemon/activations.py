"""Activations: a caller gets an instance of a function, which is started when there is memory for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from faasmoe.platforms.local.daemon.pool import PROMISE_NS, FunctionState, InstanceState, Pool
from faasmoe.platforms.local.protocol.messages import PlatformFailed, RequestRefused
from faasmoe.util.backoff import Backoff
from faasmoe.util.failure_log import reason_of

_PROOF_SECONDS = 5.0  # in which the first instance after a scarcity must show that it has what it needs
_LATELY = 10.0  # seconds after a failure in which an end of an instance may have the same cause
_CALM = 2.0  # seconds without a failure, after which pauses begin with the shortest again
_PAUSES = (0.1, 1.0)  # seconds between attempts, unless an instance ends before


class Scarcity:
    """A lack of processes or descriptors: pids.max, RLIMIT_NPROC, RLIMIT_NOFILE, a full disk.

    It is noted when an instance could not be started, until one could. Nothing here waits.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds."""
        self.why = ""  # empty: there is none
        self.due = False  # a pause comes before the next attempt
        self._clock = clock
        self._backoff = Backoff(*_PAUSES, calm=_CALM, clock=clock)
        self._failed = -math.inf

    @property
    def lately(self) -> bool:
        """Whether there is a scarcity, or was one a short time ago."""
        return self._clock() - self._failed < _LATELY

    def failed(self, why: str) -> None:
        """An instance could not be started."""
        self.why, self.due, self._failed = why, True, self._clock()
        self._backoff.failed()

    def pause(self) -> float:
        """Seconds to wait before the next attempt, which may be made then."""
        self.due = False
        return self._backoff.left

    def over(self) -> None:
        """An instance could be started."""
        self.why, self.due = "", False


class Processes(Protocol):
    """The processes of instances, see `Lifecycle`."""

    @property
    def zygote_up(self) -> bool:
        """Whether instances can be forked."""

    async def zygote_ready(self) -> None:
        """Have a zygote. Raises `RequestRefused` if it cannot be started."""

    def start(self, function: FunctionState, kept: bool) -> InstanceState:
        """Start an instance. Raises `OSError`."""

    def drain(self, running: InstanceState) -> None:
        """Let an instance finish its calls, and end."""

    async def changed(self) -> None:
        """Wait until an instance has been forked, loaded or stopped, or was asked to report and has answered a call."""


class Activations:
    """Obtains instances. Activations that have to wait are served in the order in which they came."""

    def __init__(self, pool: Pool, processes: Processes, clock: Callable[[], int]) -> None:
        """`clock` gives nanoseconds."""
        self._pool = pool
        self._processes = processes
        self._clock = clock
        self.scarcity = Scarcity(lambda: clock() / 1e9)
        self._turn = asyncio.Lock()  # first come, first served

    async def obtain(self, name: str, kept: bool) -> InstanceState:
        """An instance to call, started if need be, when there is memory for it; always a new one if it is `kept`.

        Raises `RequestRefused`.
        """
        if not kept and (running := self._pool.choose(self._pool.function(name), self._clock())):
            return running
        await self._processes.zygote_ready()
        self._pool.waiting += 1
        try:
            async with self._turn:
                while True:  # whatever was waited for, all may have changed meanwhile
                    function = self._pool.function(name)
                    if not kept and (running := self._pool.choose(function, self._clock())):
                        return running
                    if self._pool.shortage(function.charge):
                        await self._room(function.charge)
                    elif not self._processes.zygote_up:
                        await self._processes.zygote_ready()
                    elif self.scarcity.due:
                        await self._make_way(self._pool.least_valuable, self.scarcity.pause())
                    elif running := await self._try(function, kept):
                        return running
        finally:
            self._pool.waiting -= 1

    async def _room(self, charge: int) -> None:
        """Stop idle instances if that makes room for `charge` bytes, and wait. Raises `RequestRefused`."""
        pool = self._pool
        if pool.budget is not None and pool.own + charge > pool.budget:
            cause = (
                f"it needs {charge} bytes and the platform's own processes {pool.own}, "
                f"but the memory budget is {pool.budget}"
            )
            raise RequestRefused(PlatformFailed(cause))
        # nothing tells when a promise has expired
        await self._make_way(partial(pool.evictable, charge), PROMISE_NS / 1e9)

    async def _make_way(self, victims: Callable[[int], Sequence[InstanceState]], seconds: float) -> None:
        """Stop `victims`, and wait for the next change or `seconds`. `victims` is called with the time in ns."""
        try:
            # before looking, or a call that ends now would be missed
            for running in self._pool.instances.values():
                running.record.report = True
            for victim in victims(self._clock()):
                victim.evicted = True
                self._processes.drain(victim)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._processes.changed()
        finally:
            for running in self._pool.instances.values():
                running.record.report = False

    async def _try(self, function: FunctionState, kept: bool) -> InstanceState | None:
        """Start an instance. Returns None if the system refuses that now, which `scarcity` notes."""
        try:
            running = self._processes.start(function, kept)
        except OSError as error:
            self.scarcity.failed(reason_of(error))
            return None
        if self.scarcity.why:  # the instance must first show that it has what it needs
            with suppress(TimeoutError):  # it has it, but loads slowly
                async with asyncio.timeout(_PROOF_SECONDS):
                    while running.path in self._pool.instances and not running.record.mapped:
                        running.record.report = True
                        await self._processes.changed()
            if running.path not in self._pool.instances:
                return None
            self.scarcity.over()
        return running

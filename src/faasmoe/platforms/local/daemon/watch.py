"""Looks for processes of the pool that hang and has them killed; each is replaced when it is needed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from faasmoe.platforms.local.daemon.pool import InstanceState, Pool
from faasmoe.platforms.local.daemon.zygote import Zygote
from faasmoe.util.failure_log import FailureLog
from faasmoe.util.liveness import TICK, HangJudge, HangLimits, ReadState, read_state

log = logging.getLogger(__name__)

_IDLE_LOOKS = 6  # of an instance that a caller suspects, or that does not take its assignment
_LEAST_CPU_SECONDS, _CPU_FACTOR = 5.0, 20.0  # CPU time of a call: at least, and times the expected seconds
# instances between calls that are looked at in a tick; the caller of one that is stopped suspects it
_MOST_BETWEEN_CALLS = 50


@dataclass
class _Watched:
    judge: HangJudge
    answered: int | None = None  # calls that it had answered when a caller suspected it; None: not suspected
    seen_stopped: bool = False


class Watch:
    """Looks at the zygote and at instances every `TICK`."""

    def __init__(
        self,
        pool: Pool,
        zygote: Zygote,
        kill: Callable[[InstanceState, str], None],
        read: ReadState = read_state,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`kill` is called with an instance that hangs and the evidence."""
        self._pool = pool
        self._zygote = zygote
        self._kill = kill
        self._read = read
        self._clock = clock
        self._failures = FailureLog(log, clock=clock)
        self._of_zygote = HangJudge(clock=clock)
        self._owed = False
        self._watched: dict[str, _Watched] = {}  # by path
        self._next = 0  # index of the instance between calls that is looked at next

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            try:
                self.tick()
            except Exception as error:  # noqa: BLE001 - the next look may do better
                self._failures.failed("looking after processes", error)

    def suspect(self, running: InstanceState, expected: float) -> None:
        """A caller has waited for much longer than `expected` seconds: the instance must show that it works."""
        watched = self._watched_of(running)
        if watched.answered is None:
            watched.judge = self._judge(_CPU_FACTOR * expected)
            watched.answered = int(running.record.invocations)

    def tick(self) -> None:
        """Take one look at the zygote and at the instances whose turn it is."""
        self._look_at_zygote()
        for path in self._watched.keys() - self._pool.instances.keys():
            del self._watched[path]
        for running in self._chosen():
            self._look_at(running)

    def _look_at_zygote(self) -> None:
        if self._zygote.pid is None:
            self._of_zygote.forget()
            self._owed = False
            return
        state = self._read(self._zygote.pid, False)
        if cause := self._of_zygote.check(state, owes=self._owed and self._zygote.owes):
            self._of_zygote.forget()
            self._zygote.end(cause)
            return
        self._zygote.ping()
        self._owed = self._zygote.owes

    def _chosen(self) -> list[InstanceState]:
        """Instances that have calls or are suspected, and some of the others in turn."""
        urgent, idle = [], []
        for path, running in self._pool.instances.items():
            if running.pid is None or running.fault:
                continue
            watched = self._watched.get(path)
            marked = watched and (watched.seen_stopped or watched.answered is not None)
            if marked or running.record.in_flight or not running.record.forked:
                urgent.append(running)
            else:
                idle.append(running)
        if len(idle) > _MOST_BETWEEN_CALLS:
            first, self._next = self._next % len(idle), self._next + _MOST_BETWEEN_CALLS
            idle = [*idle[first:], *idle[:first]][:_MOST_BETWEEN_CALLS]
        return urgent + idle

    def _look_at(self, running: InstanceState) -> None:
        watched, record = self._watched_of(running), running.record
        if watched.answered is not None and record.invocations != watched.answered:
            watched.answered = None  # it works
        suspected = watched.answered is not None and bool(record.in_flight or not record.mapped)
        owes = suspected or not record.forked
        state = self._read(running.pid or 0, owes)
        watched.seen_stopped = state is not None and state.stopped
        if cause := watched.judge.check(state, owes):
            self._kill(running, cause)

    def _watched_of(self, running: InstanceState) -> _Watched:
        try:
            return self._watched[running.path]
        except KeyError:
            return self._watched.setdefault(running.path, _Watched(self._judge()))

    def _judge(self, cpu_seconds: float = 0.0) -> HangJudge:
        limits = HangLimits(idle_looks=_IDLE_LOOKS, cpu_seconds=max(_LEAST_CPU_SECONDS, cpu_seconds))
        return HangJudge(limits, self._clock)

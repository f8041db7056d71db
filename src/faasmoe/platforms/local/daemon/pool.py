"""The state of a pool: functions, their instances, and the memory that they share. Nothing here does I/O or waits."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from socket import gethostname

from faasmoe.platforms.base import FunctionSpec, FunctionStatus, Instance, PoolStatus, PoolTotals
from faasmoe.platforms.latency import BUCKETS, bound_of, percentile
from faasmoe.platforms.local.daemon.eviction import Candidate, victims
from faasmoe.platforms.local.limits import INSTANCE_BYTES
from faasmoe.platforms.local.protocol.messages import NotDeployed, RequestRefused
from faasmoe.platforms.local.protocol.payloads import Duty
from faasmoe.platforms.local.protocol.stats_page import InstanceStats

_NODE = gethostname()
_HANDLER = re.compile(
    r"[\w.]{1,500}:\w{1,500}"
)  # names of Python, in an order to the zygote that has room for them
_LONGEST_SHOWN = 100  # characters
_LONGEST_PATH = 4095  # bytes, PATH_MAX without the final zero
PROMISE_NS = 2_000_000_000  # an instance that was handed out is called within this, or it counts as idle again
_DISK_BYTES_PER_SECOND = 1e9  # to guess a cold start that was not measured yet
_FORK_SECONDS = 0.005


@dataclass(eq=False)
class InstanceState:
    """An instance from activation to the news of its end."""

    function: FunctionState
    path: str  # of its socket
    record: InstanceStats
    kept: bool  # one of the function's minimum
    _: KW_ONLY
    number: int = -1  # the zygote's, once it is told to fork it
    pid: int | None = None  # once it is forked
    draining: bool = False
    evicted: bool = False
    fault: str = ""  # why it was killed, if it was for hanging
    promised_at: int = 0  # when it was last handed to a caller, and how many calls it had answered then
    promised_after: int = -1

    @property
    def charge(self) -> int:
        """Bytes that it counts for."""
        return self.function.charge

    def totals(self, now: int) -> PoolTotals:
        """The resources that it has used from its activation to `now` (nanoseconds)."""
        record, gb = self.record, self.charge / 1e9
        busy = record.busy / 1e9
        return PoolTotals(gb * (now - record.activated) / 1e9, gb * busy, busy, int(record.invocations), 1)

    def duty(self, slot: int) -> Duty:
        """What the instance's process is to do; `slot` is that of its record."""
        spec = self.function.spec
        return Duty(
            slot=slot,
            handler=spec.handler,
            artifact=os.fsencode(spec.artifact),
            keep_alive=None if self.kept or spec.keep_alive == math.inf else spec.keep_alive,
            concurrency=spec.concurrency,
        )

    def promise(self, now: int) -> None:
        """A caller is about to call it."""
        self.promised_at, self.promised_after = now, self.record.invocations

    def idle(self, now: int) -> bool:
        """Whether it has loaded and has no call."""
        return bool(self.record.mapped) and not self.load(now)

    def load(self, now: int) -> int:
        """The number of calls that it has or is about to get."""
        promised = self.promised_after == self.record.invocations and now - self.promised_at < PROMISE_NS
        return max(int(self.record.in_flight), int(promised))


@dataclass(eq=False)
class FunctionState:
    """A deployed function, its instances, and counts of those that have ended."""

    spec: FunctionSpec  # with a keep-alive (`resolved`)
    instances: list[InstanceState] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # invocations, cold_starts, deaths, evictions
    latency: list[int] = field(default_factory=list)  # as in `InstanceStats`
    last_end: str = ""  # why its last instance died, if one did

    @property
    def charge(self) -> int:
        """Bytes that an instance counts for."""
        return self.spec.memory + INSTANCE_BYTES

    @property
    def live(self) -> list[InstanceState]:
        """Instances that may be called."""
        return [r for r in self.instances if not r.draining and not r.record.draining]

    @property
    def invocations(self) -> int:
        """Of all its instances so far."""
        return self.counts["invocations"] + sum(int(running.record.invocations) for running in self.instances)

    def status(self) -> FunctionStatus:
        """The status that clients are told."""
        latency = self.latencies()
        state = "zero"
        if self.instances:
            loaded = any(running.record.mapped for running in self.instances)
            state = "idle" if loaded else "starting"
        if any(running.record.in_flight for running in self.instances):
            state = "busy"
        return FunctionStatus(
            name=self.spec.name,
            state=state,
            instances=tuple(Instance(str(running.pid), _NODE) for running in self.instances if running.pid),
            invocations=self.invocations,
            cold_starts=self.counts["cold_starts"],
            deaths=self.counts["deaths"],
            evictions=self.counts["evictions"],
            p50=percentile(latency, 0.5),
            p99=percentile(latency, 0.99),
            memory=sum(running.charge for running in self.instances),
        )

    def latencies(self) -> list[int]:
        """Calls by duration, in the buckets of `record`."""
        total = self.latency or [0] * BUCKETS
        for running in self.instances:
            if running.record.invocations:
                total = [a + b for a, b in zip(total, running.record.latency, strict=True)]
        return total


class Pool:
    """All functions, and how much memory their instances may take together."""

    def __init__(self, budget: int | None) -> None:
        self.budget = budget  # bytes
        self.own = 0  # bytes that the platform's own processes take
        self.waiting = 0
        self.functions: dict[str, FunctionState] = {}
        self.instances: dict[str, InstanceState] = {}  # by path
        self.phases: dict[str, tuple[int, float]] = {}
        self.ended = PoolTotals()  # of instances that are no more

    def function(self, name: str) -> FunctionState:
        """The function that is deployed as `name` now. Raises `RequestRefused`."""
        if function := self.functions.get(name):
            return function
        raise RequestRefused(NotDeployed(name))

    @property
    def used(self) -> int:
        """Bytes counted against the budget."""
        return self.own + sum(running.charge for running in self.instances.values())

    def choose(self, function: FunctionState, now: int) -> InstanceState | None:
        """Return the instance for another caller; None if a new one should be started."""
        live = function.live
        if not live:
            return None
        best = min(live, key=lambda running: running.load(now))
        spec = function.spec
        if best.load(now) < spec.concurrency or len(live) >= spec.max_instances:
            return best
        # more instances help only while memory is left: evicting others for them would not
        return best if self.shortage(function.charge) > 0 else None

    def shortage(self, charge: int) -> int:
        """Bytes that an instance of `charge` bytes lacks."""
        return 0 if self.budget is None else max(0, self.used + charge - self.budget)

    def evictable(self, charge: int, now: int) -> list[InstanceState]:
        """Idle instances to stop so that `charge` fits once they, and those draining already, are gone.

        Empty if there are not enough of them.
        """
        return self._least_valuable(
            self.shortage(charge) - sum(r.charge for r in self.instances.values() if r.draining), now
        )

    def least_valuable(self, now: int) -> list[InstanceState]:
        """An idle instance to stop so that another can have its process and descriptors.

        Empty if none is idle, or one is on its way out already.
        """
        if any(running.draining for running in self.instances.values()):
            return []
        return self._least_valuable(1, now)

    def _least_valuable(self, nbytes: int, now: int) -> list[InstanceState]:
        running = list(self.instances.values())
        candidates = [
            Candidate(
                key=i,
                uses=r.function.invocations,
                idle_seconds=(now - r.record.last_used) / 1e9,
                nbytes=r.charge,
                cold_start_seconds=self.cold_start_seconds(r.function.spec),
            )
            for i, r in enumerate(running)
            if not r.draining and not r.kept and r.idle(now)
        ]
        return [running[i] for i in victims(candidates, nbytes) or ()]

    def cold_start_seconds(self, spec: FunctionSpec) -> float:
        """Estimate the seconds of a cold start of a function."""
        return _FORK_SECONDS + spec.memory / _DISK_BYTES_PER_SECOND

    def least(self, names: Sequence[str]) -> int:
        """Bytes that a budget must have for one instance of each of `names`, beside those always kept."""
        wanted = Counter({n: f.spec.min_instances for n, f in self.functions.items()}) | Counter(set(names))
        return self.own + sum(self.functions[name].charge * n for name, n in wanted.items())

    def add(self, running: InstanceState) -> None:
        """An instance has been activated."""
        running.function.instances.append(running)
        running.function.counts["cold_starts"] += 1
        self.instances[running.path] = running

    def remove(self, running: InstanceState, cause: str, now: int) -> None:
        """An instance has ended, because of `cause` if that was not intended."""
        function, record = running.function, running.record
        self.ended += running.totals(now)
        function.instances.remove(running)
        del self.instances[running.path]
        function.latency = [a + b for a, b in zip(function.latency or [0] * BUCKETS, record.latency, strict=True)]
        function.counts["invocations"] += record.invocations
        function.counts["evictions"] += running.evicted
        if cause:
            function.counts["deaths"] += 1
            function.last_end = cause
        for phase, seconds in phases(record):
            self._count_phase(self.phases, phase, seconds)

    def _count_phase(self, totals: dict[str, tuple[int, float]], phase: str, seconds: float) -> None:
        count, total = totals.get(phase, (0, 0.0))
        totals[phase] = count + 1, total + seconds

    def status(self, now: int) -> PoolStatus:
        """The status that clients are told."""
        totals = dict(self.phases)
        latency = [0] * BUCKETS
        for running in self.instances.values():
            for phase, seconds in phases(running.record):
                self._count_phase(totals, phase, seconds)
        for function in self.functions.values():
            if function.latency or function.instances:
                latency = [a + b for a, b in zip(latency, function.latencies(), strict=True)]
        return PoolStatus(
            functions=[function.status() for function in self.functions.values()],
            memory_budget=self.budget,
            memory_used=self.used,
            waiting=self.waiting,
            latency=[(bound_of(bucket), count) for bucket, count in enumerate(latency)],
            cold_start_phases=totals,
            totals=sum((running.totals(now) for running in self.instances.values()), self.ended),
        )


def phases(record: InstanceStats) -> Iterator[tuple[str, float]]:
    """Yield the phases of an instance's cold start that are over, with their seconds."""
    if record.forked:
        yield "fork", (record.forked - record.activated) / 1e9
    if record.mapped:
        yield "map", (record.mapped - record.forked) / 1e9
    if record.touched:
        yield "first_touch", record.first_call / 1e9


def resolved(spec: FunctionSpec, keep_alive: float) -> FunctionSpec:
    """Return the spec with the pool's `keep_alive` if it has none of its own. Raises `ValueError` if it is invalid."""
    if spec.keep_alive is None:
        spec = replace(spec, keep_alive=keep_alive)
    if not _HANDLER.fullmatch(spec.handler):
        raise ValueError(f"handler {spec.handler[:_LONGEST_SHOWN]!r} of {spec.name} is not module:attribute")
    if not 0 < len(_encoded(spec.artifact)) <= _LONGEST_PATH:
        raise ValueError(f"the artifact of {spec.name} is no path of 1 to {_LONGEST_PATH} bytes")
    if not 0 <= spec.min_instances <= spec.max_instances or spec.max_instances < 1:
        raise ValueError(f"{spec.name}: from {spec.min_instances} to {spec.max_instances} instances is no range")
    if spec.concurrency < 1 or not (spec.keep_alive or 0.0) >= 0 or spec.memory < 0:
        raise ValueError(f"{spec.name}: concurrency is at least 1, keep-alive and memory at least 0")
    return spec


def _encoded(path: Path) -> bytes:
    """The path as the file system has it; b"" if it cannot have it."""
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:
        return b""

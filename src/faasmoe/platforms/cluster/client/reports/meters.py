"""What the agents of a cluster have metered, those included that are lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from faasmoe.platforms.base import PoolStatus, PoolTotals
from faasmoe.platforms.cluster.protocol.messages import NodeReport, Traffic


@dataclass(frozen=True, slots=True)
class _Reading:
    """The last report of an agent, and what heartbeats have told since."""

    report: NodeReport
    reported: float  # instant
    traffic: Traffic
    beat: float  # instant of the last heartbeat


class Meters:
    """For all threads. Agents are told apart by incarnation, so one that was started again begins at zero."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._readings: dict[str, _Reading] = {}
        self._lock = threading.Lock()

    def report(self, agent: str, report: NodeReport) -> None:
        """An agent has reported."""
        with self._lock:
            now = self._clock()
            self._readings[agent] = _Reading(report, now, report.traffic, now)

    def beat(self, agent: str, traffic: Traffic) -> None:
        """An agent has answered a heartbeat."""
        with self._lock:
            if before := self._readings.get(agent):
                self._readings[agent] = replace(before, traffic=traffic, beat=self._clock())

    def beats(self, agent: str) -> float:
        """The instant of an agent's last heartbeat or report; 0 if it has never reported."""
        with self._lock:
            reading = self._readings.get(agent)
            return reading.beat if reading else 0.0

    def gone(self, live: Collection[str]) -> list[PoolStatus]:
        """What agents have done that are not `live`: their last reports, and what they did until the last heartbeat.

        Instances of the last report count as if they had lived until then (docs/metering.md).
        """
        with self._lock:
            return [_until_loss(reading) for agent, reading in self._readings.items() if agent not in live]


def _until_loss(last: _Reading) -> PoolStatus:
    pool, before, after = last.report.pool, last.report.traffic, last.traffic
    memory = sum(function.memory for function in pool.functions)
    since = PoolTotals(
        instance_gb_seconds=memory / 1e9 * (last.beat - last.reported),
        busy_gb_seconds=after.busy_gb_seconds - before.busy_gb_seconds,
        busy_seconds=after.busy_seconds - before.busy_seconds,
        invocations=after.calls - before.calls,
    )
    return replace(pool, totals=pool.totals + since)

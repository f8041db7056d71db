"""The process that looks ten times a second at a system under test, so that looking takes little of its time.

CPU time and resident sets of all processes are read in each sample, page tables are walked and the page cache is
asked as far as the budget goes (`memory`). If samples alone take too much of it, there are fewer of them.

It reads its orders, one JSON object, from standard input; looks at everything, and writes a line when it has begun; and
when its input ends, a line with all that it has seen.

    python -m faasmoe.evaluation.meters.sampler
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from faasmoe.errors import MeasurementError
from faasmoe.evaluation.meters.budget import MOST_SAVED, MeterBudget
from faasmoe.evaluation.meters.memory import Memory
from faasmoe.evaluation.meters.processes import Family
from faasmoe.evaluation.meters.residency import Range, resident_bytes
from faasmoe.evaluation.meters.tally import CpuTally
from faasmoe.util.processes import leave_signals_to_parent

_OF_SAMPLES = 0.015  # of a core may be samples without any walk
_OF_PAGE_CACHE = 0.005  # of a core may be asking for the page cache
_RESIDENCY_EVERY = 1.0  # seconds at least


class ResourceSampler:
    """Columns of figures that grow by a row with each `sample`. Rows are relative to `begin`."""

    def __init__(self, family: Family, files: Mapping[str, Sequence[Range]], share: float) -> None:
        self._family = family
        self._memory = Memory()
        self._files = files
        self._share = share
        self._tally = CpuTally()
        self._resident_due = 0.0
        self.cost = 0.0  # seconds of CPU time that the last sample took without walks
        self.times: list[float] = []
        self.pss: dict[str, list[int]] = {}  # by role
        self.cpu: dict[str, list[float]] = {}  # by role, seconds so far
        self.resident_times: list[float] = []
        self.resident: dict[str, list[int]] = {name: [] for name in files}

    def begin(self) -> None:
        """Look at everything, and then for the first time. Raises `MeasurementError` if the kernel does not tell."""
        members = self._family.look()
        if not members:
            raise MeasurementError("the process to measure does not run")
        self._memory.look(members)
        self._look_at_files(0.0)
        self._budget = MeterBudget(self._share, MOST_SAVED)
        self._started = time.monotonic()
        self.sample()

    def sample(self) -> None:
        """Look as far as the budget goes."""
        begun = time.process_time()
        members = self._family.look()
        self._tally.add(members)
        now = time.monotonic() - self._started if self.times else 0.0
        self.cost = time.process_time() - begun
        self._add_row(now, self._memory.look(members, self._budget))
        if now >= self._resident_due:
            self._look_at_files(now)

    def end(self) -> float:
        """Look at everything once more. Returns the seconds of CPU time between `begin` and now."""
        members = self._family.look()
        self._tally.add(members)
        now, used = time.monotonic() - self._started, self._budget.used
        self._add_row(now, self._memory.look(members))
        self._look_at_files(now)
        return used

    def columns(self) -> dict[str, Any]:
        """Everything, for JSON."""
        names = ("times", "pss", "cpu", "resident_times", "resident")
        return {name: getattr(self, name) for name in names}

    @property
    def walks(self) -> int:
        """Looks at the page tables of a process so far."""
        return self._memory.walks

    def _add_row(self, now: float, memory: Mapping[str, int]) -> None:
        _append(self.pss, memory, len(self.times), missing=0)
        _append(self.cpu, self._tally.seconds, len(self.times), missing=0.0)
        self.times.append(now)

    def _look_at_files(self, now: float) -> None:
        begun = time.process_time()
        for name, ranges in self._files.items():
            self.resident[name].append(resident_bytes(ranges))
        if self._files:
            self.resident_times.append(now)
        taken = time.process_time() - begun
        self._resident_due = now + max(_RESIDENCY_EVERY, taken / _OF_PAGE_CACHE)


def _append(columns: dict[str, list[Any]], row: Mapping[str, Any], rows: int, missing: Any) -> None:
    """One more row; a column that begins only now was `missing` so far."""
    for name in row:
        columns.setdefault(name, [missing] * rows)
    for name, column in columns.items():
        column.append(row.get(name, missing))


def run(sampler: ResourceSampler, interval: float) -> None:
    """Sample each `interval` seconds, or as often as samples may, until standard input ends."""
    due = time.monotonic()
    while True:
        now = time.monotonic()
        due = max(due + max(interval, sampler.cost / _OF_SAMPLES), now)
        if select.select([sys.stdin], [], [], due - now)[0]:
            return
        sampler.sample()


def main() -> None:
    """Obey the orders on standard input."""
    leave_signals_to_parent()
    orders = json.loads(sys.stdin.readline())
    files = {name: [(file, at, size) for file, at, size in its] for name, its in orders["files"].items()}
    family = Family(orders["root"], orders["role"], frozenset([os.getpid()]))
    sampler = ResourceSampler(family, files, orders["share"])
    try:
        sampler.begin()
        sys.stdout.write("{}\n")
        sys.stdout.flush()
        run(sampler, orders["interval"])
        used = sampler.end()
    except MeasurementError as error:
        sys.stdout.write(json.dumps({"error": str(error)}) + "\n")
        return
    cost = {"cpu_seconds": used, "cpu_seconds_around": time.process_time() - used, "walks": sampler.walks}
    sys.stdout.write(json.dumps({**sampler.columns(), "meter": cost}) + "\n")


if __name__ == "__main__":
    main()

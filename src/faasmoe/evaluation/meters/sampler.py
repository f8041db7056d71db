"""The process that looks ten times a second at a system under test, so that looking takes none of its time.

It reads its orders, one JSON object, from standard input; writes a line when it has begun; and when its input ends, a
line with all that it has seen.

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
from faasmoe.evaluation.meters.processes import Family, proportional_set_size
from faasmoe.evaluation.meters.residency import Range, resident_bytes
from faasmoe.evaluation.meters.tally import CpuTally

_RESIDENCY_EVERY = 1.0  # seconds: asking for the page cache takes longer than asking for processes


class Sampler:
    """Columns of figures that grow by a row with each `sample`. Rows are relative to the first."""

    def __init__(self, family: Family, files: Mapping[str, Sequence[Range]]) -> None:
        self._family = family
        self._files = files
        self._tally = CpuTally()
        self._started = time.monotonic()
        self._resident_at = float("-inf")
        self.times: list[float] = []
        self.pss: dict[str, list[int]] = {}  # by role
        self.cpu: dict[str, list[float]] = {}  # by role, seconds so far
        self.resident_times: list[float] = []
        self.resident: dict[str, list[int]] = {name: [] for name in files}

    def sample(self, last: bool = False) -> None:
        """Look once. Raises `MeasurementError` if the kernel does not tell."""
        members = self._family.look()
        if not self.times and not members:
            raise MeasurementError("what is to be measured does not run")
        self._tally.add(members)
        now = time.monotonic() - self._started
        memory = {role: sum(proportional_set_size(one.pid) for one in its) for role, its in members.items()}
        _append(self.pss, memory, len(self.times), missing=0)
        _append(self.cpu, self._tally.seconds, len(self.times), missing=0.0)
        self.times.append(now)
        if self._files and (last or now - self._resident_at >= _RESIDENCY_EVERY):
            self._resident_at = now
            self.resident_times.append(now)
            for name, ranges in self._files.items():
                self.resident[name].append(resident_bytes(ranges))

    def columns(self) -> dict[str, Any]:
        """Everything, for JSON."""
        names = ("times", "pss", "cpu", "resident_times", "resident")
        return {name: getattr(self, name) for name in names}


def _append(columns: dict[str, list[Any]], row: Mapping[str, Any], rows: int, missing: Any) -> None:
    """One more row; a column that begins only now was `missing` so far."""
    for name in row:
        columns.setdefault(name, [missing] * rows)
    for name, column in columns.items():
        column.append(row.get(name, missing))


def run(sampler: Sampler, interval: float) -> int:
    """Sample until standard input ends. Returns how many samples were left out because one took too long."""
    begun, number, missed = time.monotonic(), 1, 0
    while True:
        wait = begun + number * interval - time.monotonic()
        if select.select([sys.stdin], [], [], max(0.0, wait))[0]:
            sampler.sample(last=True)
            return missed
        sampler.sample()
        late = int((time.monotonic() - begun) / interval) - number
        missed += max(0, late)
        number += max(0, late) + 1


def main() -> None:
    """Obey the orders on standard input."""
    orders = json.loads(sys.stdin.readline())
    files = {name: [(file, at, size) for file, at, size in its] for name, its in orders["files"].items()}
    sampler = Sampler(Family(orders["root"], orders["role"], frozenset([os.getpid()])), files)
    try:
        sampler.sample()
        sys.stdout.write("{}\n")
        sys.stdout.flush()
        missed = run(sampler, orders["interval"])
    except MeasurementError as error:
        sys.stdout.write(json.dumps({"error": str(error)}) + "\n")
        return
    cost = {"cpu_seconds": time.process_time(), "missed": missed}
    sys.stdout.write(json.dumps({**sampler.columns(), **cost}) + "\n")


if __name__ == "__main__":
    main()

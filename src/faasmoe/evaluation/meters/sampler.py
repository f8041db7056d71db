"""The process that looks ten times a second at a system under test, so that looking takes little of its time.

Having the kernel add up a process's pages takes it a millisecond. So each look has a twentieth of the interval for
that: new processes come first, then those that were not looked at for longest; the others count as when last seen.

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

from faasmoe.children import leave_signals_to_parent
from faasmoe.errors import MeasurementError
from faasmoe.evaluation.meters.processes import Family, Seen, proportional_set_size
from faasmoe.evaluation.meters.residency import Range, resident_bytes
from faasmoe.evaluation.meters.tally import CpuTally

_SHARE = 0.05  # of the time goes into looking at memory
_RESIDENCY_EVERY = 1.0  # seconds: asking for the page cache takes longer than asking for processes


class Memory:
    """What processes were last seen to stand for, in bytes. A look takes little more than `seconds` of our time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[tuple[int, int], int] = {}  # by id and start, the latest look last

    def look(self, members: Mapping[str, Sequence[Seen]], everybody: bool = False) -> None:
        """Look at those of `members` whose turn it is, or at `everybody`."""
        there = [(one.pid, one.started) for its in members.values() for one in its]
        new = [key for key in there if key not in self._seen]
        old = self._seen.keys() - set(there)
        self._seen = {key: nbytes for key, nbytes in self._seen.items() if key not in old}
        until = time.process_time() + self._seconds
        for key in [*new, *self._seen]:
            if key not in new and not everybody and time.process_time() > until:
                return
            self._seen.pop(key, None)
            self._seen[key] = proportional_set_size(key[0])

    def of(self, one: Seen) -> int:
        """As last seen."""
        return self._seen[one.pid, one.started]


class Sampler:
    """Columns of figures that grow by a row with each `sample`. Rows are relative to the first."""

    def __init__(self, family: Family, files: Mapping[str, Sequence[Range]], interval: float) -> None:
        self._family = family
        self._memory = Memory(_SHARE * interval)
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
        self._memory.look(members, everybody=last)
        memory = {role: sum(map(self._memory.of, its)) for role, its in members.items()}
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
    leave_signals_to_parent()
    orders = json.loads(sys.stdin.readline())
    files = {name: [(file, at, size) for file, at, size in its] for name, its in orders["files"].items()}
    sampler = Sampler(Family(orders["root"], orders["role"], frozenset([os.getpid()])), files, orders["interval"])
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

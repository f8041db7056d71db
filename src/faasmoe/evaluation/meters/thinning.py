"""Leaves out samples that say nothing new, so that results of many runs stay small enough to be published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from faasmoe.evaluation.meters.meter import MeasuredUsage

TOLERANCE = 0.005  # of the peak: a role's memory has changed if it changed by more
LONGEST = 1.0  # seconds between samples that are kept

Number = TypeVar("Number", int, float)


def thinned(usage: MeasuredUsage) -> MeasuredUsage:
    """The first and the last sample, all peaks, those around every change of memory, and one for each second.

    Times are rounded to milliseconds, CPU time to the 10 ms in which the kernel counts it.
    """
    kept = _kept(usage)
    return replace(
        usage,
        times=[round(usage.times[i], 3) for i in kept],
        pss=_columns(usage.pss, kept),
        cpu={role: [round(column[i], 2) for i in kept] for role, column in usage.cpu.items()},
        resident_times=[round(time, 3) for time in usage.resident_times],
    )


def _kept(usage: MeasuredUsage) -> list[int]:
    total, columns = usage.total, list(usage.pss.values())
    peaks = {column.index(max(column)) for column in map(list, [total, *columns])}
    least = TOLERANCE * max(total)
    kept, last = {0, len(total) - 1, *peaks}, 0
    for i in range(1, len(total)):
        changed = any(abs(column[i] - column[last]) > least for column in columns)
        if changed:
            kept.add(i - 1)  # so that a step does not become a slope
        if changed or i in peaks or usage.times[i] - usage.times[last] >= LONGEST:
            kept.add(i)
            last = i
    return sorted(kept)


def _columns(columns: Mapping[str, Sequence[Number]], kept: Sequence[int]) -> dict[str, list[Number]]:
    return {name: [column[i] for i in kept] for name, column in columns.items()}

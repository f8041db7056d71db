"""Quantities that are constant between instants."""

from __future__ import annotations

import numpy as np

from faasmoe.planner.routing import Array
from faasmoe.planner.simulation import Int


def average_and_peak(times: Array, levels: Array, start: float, end: float) -> tuple[float, float]:
    """Mean and peak between `start` and `end` of a step function: 0 at first, `levels[i]` from `times[i]` on."""
    bounds = np.concatenate([[start], times[(times > start) & (times < end)], [end]])
    at = np.searchsorted(times, bounds[:-1], side="right") - 1
    values = np.where(at >= 0, levels[np.maximum(at, 0)] if len(levels) else 0.0, 0.0)
    return float((values * np.diff(bounds)).sum() / (end - start)), float(values.max())


def how_many(begin: Array, end: Array) -> tuple[Array, Array]:
    """The number of intervals that overlap, from each instant at which the number changes."""
    times = np.concatenate([begin, end])
    order = np.argsort(times, kind="stable")
    steps = np.concatenate([np.ones(len(begin)), -np.ones(len(end))])[order]
    return times[order], np.cumsum(steps)


def running(owner: Int, begin: Array, end: Array) -> tuple[Array, Array]:
    """The number of owners with an open interval, from each instant at which the number changes."""
    return how_many(*merged(owner, begin, end))


def merged(owner: Int, begin: Array, end: Array) -> tuple[Array, Array]:
    """Each owner's intervals, joined where they overlap."""
    begins: list[float] = []
    ends: list[float] = []
    order = np.lexsort((begin, owner))
    last_owner, last_end = None, 0.0
    for i in order:
        if owner[i] == last_owner and begin[i] <= last_end:
            last_end = max(last_end, end[i])
            ends[-1] = last_end
        else:
            last_owner, last_end = owner[i], end[i]
            begins.append(begin[i])
            ends.append(last_end)
    return np.array(begins), np.array(ends)

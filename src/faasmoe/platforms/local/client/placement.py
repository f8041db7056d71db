"""Placement: chooses a core for each call of a fan-out.

Left to itself the kernel often wakes two instances on one core and leaves the other idle: it does not look again when
a core falls idle for less than its migration cost, and an expert's work is that short. And it wakes an idle core for a
call that would be over sooner on the caller's own, which has nothing to do while its caller waits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

ANY = -1  # the kernel's choice
WAKE = 60e-6  # seconds that a core takes to wake, and its work to be told back (`python -m benchmarks.bare`)
GRID = 20e-6  # seconds; what is less makes no difference worth a decision of its own
SEND = 10e-6  # seconds that a caller takes to send one call; before all are sent, nothing runs on its own core
_WORTH_MOVING = 0.05  # of the time that all calls take


def assign(current: Sequence[int], seconds: Sequence[float], cores: Sequence[int], own: int = ANY) -> list[int]:
    """Return a core for each call, given the core to which its instance is bound now and the call's seconds.

    The longest first, each to the core that is through with the others soonest (Graham 1969); all but `own`, on which
    the caller will wait when all is sent, must wake first. Long calls that are left over when all cores have the same
    to do are not bound: they go where a core falls idle first. Nothing is moved that is well where it is.
    """
    if len(current) == 1 and own in cores:
        return [own]
    ends = _free(cores, own, len(current))
    assigned = [ANY] * len(current)
    order = sorted(range(len(current)), key=lambda i: -seconds[i])
    for place, i in enumerate(order):
        core = min(ends, key=ends.__getitem__)
        left_over = len(order) - place < len(cores) and max(ends.values()) - ends[core] <= WAKE
        if left_over and (own == ANY or seconds[i] > WAKE):
            return assigned
        ends[core] += seconds[i]
        assigned[i] = core
    last = _last(assigned, seconds, cores, own)
    return list(current) if _last(current, seconds, cores, own) <= last * (1 + _WORTH_MOVING) else assigned


def relieve(current: Sequence[int], cores: Sequence[int]) -> list[int]:
    """Return the cores for calls that still run, given their cores: an idle core takes a call from a busy one.

    That is the last of those of the core that has most, if it has two. Calls that are not bound go to an idle core by
    themselves.
    """
    moved = list(current)
    idle = [core for core in cores if core not in current]
    for core in idle[moved.count(ANY) :]:
        fullest = max(cores, key=moved.count)
        if moved.count(fullest) < 2:
            break
        moved[len(moved) - 1 - moved[::-1].index(fullest)] = core
    return moved


def _free(cores: Sequence[int], own: int, calls: int) -> dict[int, float]:
    """Seconds until each core can begin."""
    return {core: SEND * calls if core == own else WAKE for core in cores}


def _last(assigned: Sequence[int], seconds: Sequence[float], cores: Sequence[int], own: int) -> float:
    """Seconds until all calls are over; infinity if a call is not bound to one of the cores."""
    ends = _free(cores, own, len(assigned))
    if not set(assigned) <= ends.keys():
        return math.inf
    for core, its_seconds in zip(assigned, seconds, strict=True):
        ends[core] += its_seconds
    return max((ends[core] for core in assigned), default=0.0)

"""Which core runs which call of a fan-out.

Left to itself the kernel often wakes two instances on one core and leaves the other idle: it does not look again when
a core falls idle for less than its migration cost, and an expert's work is that short.
"""

from __future__ import annotations

from collections.abc import Sequence

ANY = -1  # the kernel's choice


def assign(current: Sequence[int], cores: Sequence[int]) -> list[int]:
    """A core for each call, given where its instance is bound now: as few changes as possible, as many on each core.

    Calls that are left over when each core has as many as the others are not bound, so that they go where a core falls
    idle first; neither is a single call.
    """
    share = len(current) // len(cores)
    room = dict.fromkeys(cores, share if len(current) > 1 else 0)
    assigned = [ANY] * len(current)
    for i, core in enumerate(current):
        if room.get(core, 0):
            room[core] -= 1
            assigned[i] = core
    free = [core for core, left in room.items() for _ in range(left)]
    for i, core in enumerate(assigned):
        if core == ANY and free:
            assigned[i] = free.pop()
    return assigned

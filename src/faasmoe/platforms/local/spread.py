"""Which core runs which call of a fan-out.

Left to itself the kernel often wakes two instances on one core and leaves the other idle: it does not look again when
a core falls idle for less than its migration cost, and an expert's work is that short.
"""

from __future__ import annotations

from collections.abc import Sequence

ANY = -1  # the kernel's choice


def assign(current: Sequence[int], work: Sequence[float], cores: Sequence[int]) -> list[int]:
    """A core for each call, given where its instance is bound now and how long the call will take beside the others.

    The longest first, each to the core that has least to do (Graham 1969), and to its own if that is one of them.
    Calls that are left over when all cores have the same to do are not bound: they go where a core falls idle first.
    """
    loads = dict.fromkeys(cores, 0.0)
    assigned = [ANY] * len(current)
    order = sorted(range(len(current)), key=lambda i: -work[i])
    for place, i in enumerate(order):
        least = min(loads.values())
        if len(order) - place < len(cores) and max(loads.values()) == least:
            break
        core = current[i] if loads.get(current[i]) == least else min(loads, key=loads.__getitem__)
        loads[core] += work[i]
        assigned[i] = core
    return assigned

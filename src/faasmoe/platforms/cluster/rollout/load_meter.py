"""The load meter: from recorded calls to the load of each function."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, log

HALF_LIFE = 120.0  # seconds after which a call counts half: long beside a prompt, short beside a change of tenants
FEW = 16  # readings of its weights that each function is taken to have had: fewer calls than these say little


class LoadMeter:
    """Activated bytes of each function, as a moving average in which old calls count less and less.

    EPLB leaves the estimate to its user and names a moving average as the usual one. This one decays with time, so that
    what several nodes report can be added, but not while nothing is called: a night says nothing about the next day.
    One thread uses it.
    """

    def __init__(self, half_life: float = HALF_LIFE) -> None:
        self._rate = log(2) / half_life
        self._work: dict[str, float] = {}  # decayed bytes

    def note(self, work: Mapping[str, float], seconds: float) -> bool:
        """Count the bytes that calls have activated in the last `seconds`. Returns whether there were any."""
        if not any(work.values()):
            return False
        decay = exp(-self._rate * seconds)
        self._work = {function: bytes_ * decay for function, bytes_ in self._work.items()}
        for function, bytes_ in work.items():
            self._work[function] = self._work.get(function, 0.0) + bytes_
        return True

    def loads(self, memory: Mapping[str, int]) -> dict[str, float]:
        """The load of each function, whose weights take so many bytes; in a unit that all functions share."""
        return {function: self._work.get(function, 0.0) + FEW * size for function, size in memory.items()}

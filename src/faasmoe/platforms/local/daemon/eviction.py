"""Eviction: chooses the idle instances that make room for others. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """An idle instance that could be stopped."""

    key: int  # by which the caller knows it
    uses: int  # calls of its function so far
    idle_seconds: float
    nbytes: int  # that its end frees
    cold_start_seconds: float  # that it costs to start it again

    @property
    def value(self) -> float:
        """Seconds of cold start that keeping it may save, per second and byte.

        Frequency times cost over size, as in Greedy-Dual-Size-Frequency (Cherkasova 1998), which FaasCache (Fuerst and
        Sharma, ASPLOS 2021) found to fit functions; how often it is used is estimated from its uses and its idle time.
        """
        return self.uses * self.cold_start_seconds / ((1.0 + self.idle_seconds) * max(1, self.nbytes))


def victims(candidates: Sequence[Candidate], nbytes: int) -> list[int] | None:
    """Keys of the least valuable candidates that free `nbytes` together; None if all of them do not suffice.

    None of those chosen could be left out.
    """
    if nbytes <= 0:
        return []
    chosen, freed = [], 0
    for candidate in sorted(candidates, key=lambda c: (c.value, c.key)):
        chosen.append(candidate)
        freed += candidate.nbytes
        if freed >= nbytes:
            break
    else:
        return None
    for candidate in reversed(chosen[:]):  # a large one that came last may make small ones unnecessary
        if freed - candidate.nbytes >= nbytes:
            chosen.remove(candidate)
            freed -= candidate.nbytes
    return [candidate.key for candidate in chosen]

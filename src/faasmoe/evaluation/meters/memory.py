"""Estimates the memory of many processes from a few that are read in turn.

To tell a process's proportional set size the kernel walks through its page tables, which takes milliseconds, and more
the more it has mapped. Its resident set costs nothing: it stands beside its CPU time. So the resident set of
everybody is seen each time, and page tables are walked as CPU time allows: of processes that have forked their
first child, with which they share what was theirs, then of new ones, then of the others in turns, sooner of those that
have changed.

Between two walks a process has as much memory of its own as its resident set says that it gained, and its part of what
is shared is as much smaller as there are more processes that were forked from the same one: with the tenth instance all
nine before stand for less. One that was never walked through counts as others of its
role and parent do.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from statistics import fmean
from typing import NamedTuple

from faasmoe.evaluation.meters.budget import Clock, MeterBudget
from faasmoe.evaluation.meters.processes import Footprint, Seen, footprint, fork_family

_CHANGED = 0.05  # of what a process stands for: by that much its resident set has changed
_SOONER = 2.0  # seconds by which the turn of such a process comes sooner

_FORKED, _NEW, _IN_TURN = range(3)  # in this order

Members = Mapping[str, Sequence[Seen]]  # by role


@dataclass(slots=True)
class _Walk:
    """The result of one walk through the page tables of a process."""

    at: float  # seconds
    cost: float  # seconds of CPU time
    found: Footprint
    relatives: int  # how many processes shared its memory then


class _MemoryMember(NamedTuple):
    """A process whose memory is measured."""

    key: tuple[int, int]  # its id and start
    rss: int
    parent: int
    role: str
    relatives: int  # processes that share its memory, itself included

    @property
    def kind(self) -> tuple[str, int]:
        """The key of similar processes: role and parent."""
        return self.role, self.parent

    def bytes(self, last: _Walk) -> int:
        """The current estimate in bytes."""
        found = last.found
        if not found.rss:  # it had ended before the walk
            return 0
        shared = (found.pss - found.private) * last.relatives // self.relatives
        return min(self.rss, max(0, found.private + shared + self.rss - found.rss))


class Memory:
    """Bytes of the processes of a system, as last walked through and as is known to have changed since then."""

    def __init__(
        self,
        footprint_of: Callable[[int], Footprint] = footprint,
        wall: Clock = time.monotonic,
        cpu: Clock = time.process_time,
    ) -> None:
        self._footprint_of = footprint_of
        self._wall, self._cpu = wall, cpu
        self._last: dict[tuple[int, int], _Walk] = {}
        self.walks = 0

    def look(self, members: Members, budget: MeterBudget | None = None) -> dict[str, int]:
        """Bytes by role. Walks as far as `budget` goes, and through one process of each kind; None: through all."""
        there = _members(members)
        self._last = {one.key: self._last[one.key] for one in there if one.key in self._last}
        costs: dict[tuple[str, int], list[float]] = {}
        for one in there:
            if last := self._last.get(one.key):
                costs.setdefault(one.kind, []).append(last.cost)
        for (rank, _), one in sorted(((self._turn(one), one) for one in there), key=itemgetter(0)):
            last = self._last.get(one.key)
            cost = last.cost if last else fmean(costs.get(one.kind, [0.0]))
            if budget is None or one.kind not in costs or cost <= budget.left():
                costs.setdefault(one.kind, []).append(self._walk(one))
            elif rank == _IN_TURN:
                break  # others may be cheaper, but would never leave enough for this one
        return self._by_role(there)

    def _walk(self, one: _MemoryMember) -> float:
        """Measure one process. Returns the CPU seconds that this took."""
        begun, self.walks = self._cpu(), self.walks + 1
        found = self._footprint_of(one.key[0])
        self._last[one.key] = walk = _Walk(self._wall(), self._cpu() - begun, found, one.relatives)
        return walk.cost

    def _turn(self, one: _MemoryMember) -> tuple[int, float]:
        last = self._last.get(one.key)
        if not last:
            return _NEW, 0.0
        if last.relatives == 1 < one.relatives:
            return _FORKED, 0.0
        changed = abs(one.rss - last.found.rss) > _CHANGED * last.found.pss
        return _IN_TURN, last.at - _SOONER * changed

    def _by_role(self, there: Sequence[_MemoryMember]) -> dict[str, int]:
        kinds: dict[tuple[str, int], list[int]] = {}
        for one in there:
            if last := self._last.get(one.key):
                kinds.setdefault(one.kind, []).append(one.bytes(last))
        memory: dict[str, int] = {}
        for (role, parent), count in Counter(one.kind for one in there).items():
            known = kinds[role, parent]
            memory[role] = memory.get(role, 0) + sum(known) * count // len(known)
        return memory


def _members(members: Members) -> list[_MemoryMember]:
    """The processes that have memory: zombies have none, and share none."""
    there = [(role, one) for role, its in members.items() for one in its if one.rss]
    families = Counter(fork_family(role) for role, _ in there)
    return [
        _MemoryMember((one.pid, one.started), one.rss, one.parent, role, families[fork_family(role)])
        for role, one in there
    ]

"""Adds samples of processes up: CPU time by role, though processes come and go between samples."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from faasmoe.evaluation.meters.processes import Seen, role_of_child

Account = defaultdict[str, float]  # seconds by role


def _nothing() -> Account:
    return defaultdict(float)


@dataclass
class _CpuMember:
    """A process whose CPU time is counted."""

    role: str
    now: Seen
    cpu_before: float = 0.0  # seconds that do not count: it had them when the tally began
    reaped_before: float = 0.0
    ended: Account = field(default_factory=_nothing)  # what its children had when they were last seen

    def add_to(self, account: Account) -> None:
        """Add the CPU time of the process and of children that it has waited for.

        The kernel adds a child to `reaped` when it is waited for. What is there beyond the children as they were last
        seen is what they took after that, or what was never seen at all.
        """
        account[self.role] += self.now.cpu - self.cpu_before
        for role, seconds in self.ended.items():
            account[role] += seconds
        known = sum(self.ended.values())
        unseen = self.now.reaped - self.reaped_before - known
        if unseen > 0:
            account[max(self.ended, key=self.ended.__getitem__) if known else role_of_child(self.role)] += unseen


class CpuTally:
    """Seconds of CPU time by role, from the first `add` on.

    What a process took between the last look at it and its end is in its parent's account, who waited for it. A process
    whose parent ended with it counts as far as it was seen.
    """

    def __init__(self) -> None:
        self._members: dict[int, _CpuMember] = {}
        self._orphans = _nothing()
        self._begun = False

    def add(self, members: dict[str, list[Seen]]) -> None:
        """Update the tally with the processes that run now, by role."""
        there = {one.pid: (role, one) for role, its in members.items() for one in its}
        for pid in self._ended(there):
            gone = self._members.pop(pid)
            parent = self._members.get(gone.now.parent)
            gone.add_to(parent.ended if parent else self._orphans)
        for pid, (role, one) in there.items():
            if pid in self._members:
                self._members[pid].now = one
            elif self._begun:
                self._members[pid] = _CpuMember(role, one)
            else:
                self._members[pid] = _CpuMember(role, one, one.cpu, one.reaped)
        self._begun = True

    def _ended(self, there: dict[int, tuple[str, Seen]]) -> list[int]:
        """Ids of the processes that have ended, children before parents."""
        ended = [
            pid
            for pid, member in self._members.items()
            if pid not in there or there[pid][1].started != member.now.started
        ]
        return sorted(ended, key=lambda pid: self._members[pid].now.started, reverse=True)

    @property
    def seconds(self) -> dict[str, float]:
        """By role, so far."""
        total = self._orphans.copy()
        for member in self._members.values():
            member.add_to(total)
        return dict(total)

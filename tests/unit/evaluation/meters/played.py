"""Processes and clocks that are played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from faasmoe.evaluation.meters.processes import Footprint, Seen


@dataclass
class Clocks:
    """Seconds that have passed, and seconds of CPU time that were used."""

    wall: float = 0.0
    cpu: float = 0.0

    def now(self) -> float:
        return self.wall

    def used(self) -> float:
        return self.cpu


@dataclass
class PlayedSystem:
    """Processes whose memory is a function of time, and whose page tables take time to walk through.

    Process 1 has forked the others. `own` gives bytes by process id, 0 while it is not there; beside them each has its
    part of `shared`.
    """

    clocks: Clocks
    own: dict[int, Callable[[float], int]]
    shared: int = 0
    cost: float = 0.001  # seconds of CPU time for a walk
    walked: list[int] = field(default_factory=list)

    def members(self) -> dict[str, list[Seen]]:
        rss = {pid: nbytes(self.clocks.wall) for pid, nbytes in self.own.items()}
        its = [
            Seen(pid=pid, parent=int(pid > 1), started=pid, cpu=0.0, reaped=0.0, rss=self.shared + own)
            for pid, own in rss.items()
            if own
        ]
        return {"all": its}

    def footprint(self, pid: int) -> Footprint:
        self.clocks.cpu += self.cost
        self.walked.append(pid)
        own, sharers = self.own[pid](self.clocks.wall), len(self.members()["all"])
        return Footprint(
            own + self.shared // sharers, own + (self.shared if sharers == 1 else 0), self.shared + own
        )

    def total(self) -> int:
        return self.shared + sum(nbytes(self.clocks.wall) for nbytes in self.own.values())

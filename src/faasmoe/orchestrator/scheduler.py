"""Which tokens run in the next step. A plain data structure: no tensors, no sockets, no clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from faasmoe.errors import EngineBusy
from faasmoe.orchestrator.sequence import Sequence


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Limits of a step."""

    max_tokens: int = 512  # tokens a step
    max_sequences: int = 32  # sequences that run at once; others wait
    max_waiting: int = 1024  # sequences that may wait; more are refused


@dataclass(frozen=True, slots=True)
class Work:
    """The next `count` tokens of a sequence."""

    sequence: Sequence
    count: int

    @property
    def completes(self) -> bool:
        """Whether a token can be picked after it: all pending tokens are in."""
        return self.count == self.sequence.pending


class Scheduler:
    """Decodes first, then prompts in chunks, first come first served, up to the step's token budget."""

    def __init__(self, config: SchedulerConfig | None = None) -> None:
        self.config = config or SchedulerConfig()
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Let `sequence` take part from the next step on. Raises `EngineBusy` if too many wait."""
        if len(self._waiting) >= self.config.max_waiting:
            raise EngineBusy(f"{len(self._waiting)} requests are waiting already")
        self._waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget `sequence`, wherever it is."""
        if sequence in self._running:
            self._running.remove(sequence)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)

    @property
    def waiting(self) -> int:
        """Sequences that have not started."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Sequences that have started."""
        return len(self._running)

    def next_step(self) -> list[Work]:
        """Work for one step, empty if there is none. Starts waiting sequences while there is room."""
        while self._waiting and len(self._running) < self.config.max_sequences:
            self._running.append(self._waiting.popleft())
        budget = self.config.max_tokens
        work = []
        for sequence in sorted(self._running, key=lambda s: s.pending > 1):  # stable: decodes come first
            if budget == 0:
                break
            count = min(sequence.pending, budget)
            work.append(Work(sequence, count))
            budget -= count
        return work

"""Stats of an engine's steps, for the gateway's metrics."""

from __future__ import annotations

import threading
from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol

from faasmoe.protocol.stats import EngineStats


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStats:
    """Stats of one step. Seconds are wall-clock."""

    seconds: float  # from planning to the last piece of text
    phases: dict[str, float]  # seconds of "schedule", "forward", "account" and "sample"
    tokens: int  # that the model ran
    prompt_tokens: int  # of them in prefill, or recomputed after a preemption
    sequences: int  # that took part
    waiting: int  # that hold no memory yet


class Counts(Protocol):
    """Counts of dispatch since its start."""

    invocations: int
    functions: int
    cold_starts: int


class StatsRecorder:
    """The engine adds each step, the reporter reads. `counts` are those of the engine's dispatch. Thread-safe."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._stats = EngineStats()
        self._functions = 0  # that `counts` had at the last step
        self._lock = threading.Lock()

    def step(self, step: StepStats) -> None:
        """Count a step."""
        with self._lock:
            stats, counts = self._stats, self._counts
            stats.step_seconds.observe(step.seconds)
            stats.step_tokens.observe(step.tokens)
            stats.step_sequences.observe(step.sequences)
            stats.step_functions.observe(counts.functions - self._functions)
            self._functions = counts.functions
            for phase, seconds in step.phases.items():
                stats.phases[phase] = stats.phases.get(phase, 0.0) + seconds
            stats.invocations, stats.cold_starts = counts.invocations, counts.cold_starts

    def read(self, running: int, waiting: int, engine: dict[str, float]) -> EngineStats:
        """All stats up to now, with the engine's own gauges."""
        with self._lock:
            stats = deepcopy(self._stats)
        stats.running, stats.waiting, stats.engine = running, waiting, engine
        return stats

"""Counts what an engine does, for the gateway's metrics."""

from __future__ import annotations

import threading
from copy import deepcopy
from typing import Protocol

from faasmoe.engine.step_stats import StepStats
from faasmoe.protocol.stats import EngineStats


class Counts(Protocol):
    """What dispatch counts, from its start."""

    invocations: int
    functions: int
    cold_starts: int


class StatsRecorder:
    """Fed by the engine after each step, read by whoever reports. `counts` are those of the engine's dispatch."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._figures = EngineStats()
        self._functions = 0  # that `counts` had at the last step
        self._lock = threading.Lock()

    def step(self, report: StepStats) -> None:
        """Note a step."""
        with self._lock:
            figures, counts = self._figures, self._counts
            figures.step_seconds.observe(report.seconds)
            figures.step_tokens.observe(report.tokens)
            figures.step_sequences.observe(report.sequences)
            figures.step_functions.observe(counts.functions - self._functions)
            self._functions = counts.functions
            for phase, seconds in report.phases.items():
                figures.phases[phase] = figures.phases.get(phase, 0.0) + seconds
            figures.invocations, figures.cold_starts = counts.invocations, counts.cold_starts

    def read(self, running: int, waiting: int, engine: dict[str, float]) -> EngineStats:
        """All figures up to now, with the engine's own."""
        with self._lock:
            figures = deepcopy(self._figures)
        figures.running, figures.waiting, figures.engine = running, waiting, engine
        return figures

"""Stats of an orchestrator, as the gateway gets them."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# of the engine's own stats; the others are about the moment
COUNTED = frozenset({"preemptions", "speculation_proposed", "speculation_accepted"})
MANY = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(slots=True)
class Distribution:
    """A histogram: how many values were at most each bound, and above the last."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)  # one more than bounds; not cumulative
    total: float = 0.0  # sum of all values

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)
        if len(self.counts) != len(self.bounds) + 1:
            raise ValueError(
                f"{len(self.bounds)} bounds need {len(self.bounds) + 1} counts, not {len(self.counts)}"
            )

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def __add__(self, other: Self) -> Distribution:
        counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        return Distribution(self.bounds, counts, self.total + other.total)


def _seconds() -> Distribution:
    return Distribution(SECONDS)


def _many() -> Distribution:
    return Distribution(MANY)


@dataclass(slots=True, kw_only=True)
class EngineStats:
    """Everything since an orchestrator's start. Those of several can be added."""

    running: int = 0  # requests
    waiting: int = 0  # requests
    step_seconds: Distribution = field(default_factory=_seconds)
    step_tokens: Distribution = field(default_factory=_many)
    step_sequences: Distribution = field(default_factory=_many)
    step_functions: Distribution = field(default_factory=_many)  # functions that a step touched
    phases: dict[str, float] = field(default_factory=dict)  # part of a step to its seconds in all
    invocations: int = 0
    cold_starts: int = 0  # invocations that had to wait for one
    engine: dict[str, float] = field(default_factory=dict)  # its own stats, by name (`Engine.gauges`)

    def __add__(self, other: EngineStats) -> EngineStats:
        sums = {f.name: _sum(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return EngineStats(**sums)

    def counted(self) -> EngineStats:
        """Only what stays true when the orchestrator is gone."""
        lasting = {name: value for name, value in self.engine.items() if name in COUNTED}
        return replace(self, running=0, waiting=0, engine=lasting)


def _sum(a: Any, b: Any) -> Any:
    if isinstance(a, dict):
        return {key: a.get(key, 0) + b.get(key, 0) for key in {**a, **b}}
    return a + b

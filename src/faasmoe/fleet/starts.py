"""Counts of orchestrators that were started."""

from __future__ import annotations

from dataclasses import dataclass, field

from faasmoe.protocol.stats import Distribution

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass
class Starts:
    """Counts of orchestrators started so far."""

    seconds: Distribution = field(default_factory=lambda: Distribution(_SECONDS))
    again: int = 0  # after one was lost

    def count(self, seconds: float, again: bool) -> None:
        """Count an orchestrator that took requests after `seconds`; `again`: it replaces a lost one."""
        self.seconds.observe(seconds)
        self.again += again

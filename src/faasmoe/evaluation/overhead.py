"""The parts of a token's time, and the break-even of keep-alive and cold start."""

from __future__ import annotations

from dataclasses import dataclass

from faasmoe.evaluation.results import Run


def milliseconds_a_token(run: Run) -> dict[str, float]:
    """Milliseconds for each completion token, by part of a step. Raises `ZeroDivisionError` if there is no token."""
    return {part: 1000 * seconds / run.tokens for part, seconds in run.phases.items()}


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Idle seconds from which on keeping an instance costs more than starting it when it is called again.

    A cold start of S seconds holds the instance's memory M without use, so in GB-seconds it costs as much as S idle
    seconds. A request that waits for it holds the memory of everything else meanwhile: all of it, A, for S seconds,
    which is as much as A S / M idle seconds of the instance.
    """

    cold_start_seconds: float  # S
    instance_bytes: float  # M
    all_bytes: float  # A

    @property
    def alone(self) -> float:
        """If nobody waits for the start."""
        return self.cold_start_seconds

    @property
    def while_all_wait(self) -> float:
        """If everything else waits."""
        return self.cold_start_seconds * self.all_bytes / self.instance_bytes


def break_even(run: Run) -> BreakEven | None:
    """The break-even of an average instance; None without instances or cold starts."""
    if not run.instances or not run.cold_start_phases:
        return None
    seconds = sum(total / count for count, total in run.cold_start_phases.values() if count)
    memory = run.usage.pss["instances"][-1] / run.instances
    return BreakEven(seconds, memory, run.usage.total[-1]) if memory else None

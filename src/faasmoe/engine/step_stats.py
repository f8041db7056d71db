"""What a step of the engine took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepStats:
    """Figures of one step. Seconds are wall-clock."""

    seconds: float  # from planning to the last piece of text
    phases: dict[
        str, float
    ]  # seconds by phase: "schedule" (with the growth of caches), "forward", "account", "sample"
    tokens: int  # that the model ran
    prompt_tokens: int  # of them of prompts, or run again after a preemption
    sequences: int  # that took part
    waiting: int  # that hold no memory yet

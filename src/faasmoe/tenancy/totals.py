"""Sums of usage."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self


@dataclass(slots=True, kw_only=True)
class Totals:
    """Sums over requests and idle instances. Tokens of failed requests are not counted."""

    requests: int = 0
    failed: int = 0  # of them: ended by an error of the server
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of those of prompts
    completion_tokens: int = 0
    invocations: float = 0.0
    expert_seconds: float = 0.0
    gb_seconds: float = 0.0
    idle_gb_seconds: float = 0.0
    cold_starts: float = 0.0
    orchestrator_cpu_seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens."""
        return self.prompt_tokens + self.completion_tokens

    def __iadd__(self, other: Totals) -> Self:
        for name in _NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def __isub__(self, other: Totals) -> Self:
        for name in _NAMES:
            setattr(self, name, getattr(self, name) - getattr(other, name))
        return self


_NAMES = tuple(field.name for field in fields(Totals))

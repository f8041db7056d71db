"""What a client asks of the orchestrator, and what it gets back, piece by piece."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from faasmoe.errors import RequestError

MAX_STOPS = 4  # as in OpenAI's API


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are picked. Temperature 0 is greedy.

    Raises `RequestError` naming the field if a value is out of range.
    """

    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        def refuse(field_name: str, value: object, right: str) -> None:
            raise RequestError(f"{field_name} is {value!r}: must be {right}", param=field_name)

        if self.max_tokens < 1:
            refuse("max_tokens", self.max_tokens, "at least 1")
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= 2):
            refuse("temperature", self.temperature, "0 to 2")
        if not 0 < self.top_p <= 1:
            refuse("top_p", self.top_p, "above 0 and at most 1")
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            refuse("seed", self.seed, "a 64-bit integer")
        if len(self.stop) > MAX_STOPS or "" in self.stop:
            refuse("stop", list(self.stop), f"at most {MAX_STOPS} strings, none empty")


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One prompt to continue."""

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    tenant: str = ""  # who asks; requests without one share the nameless tenant


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that has become certain. The last piece of a request carries `finish_reason` or `error`."""

    text: str
    tokens: int  # completion tokens so far
    finish_reason: str | None = None  # "stop" or "length"
    error: str | None = None

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return self.finish_reason is not None or self.error is not None

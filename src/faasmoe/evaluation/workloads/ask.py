"""One request of a workload, and how long requests are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from faasmoe.errors import OptionError


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. In a closed loop `time` is None: the request starts when its tenant's previous one has ended."""

    time: float | None  # seconds after the workload's start
    tenant: str
    prompt: str | int  # its text, or how many tokens it has where the text does not matter
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of prompts and completions: log-normal with these medians, or all alike if `spread` is 0.

    `spread` is the standard deviation of the logarithm. Raises `OptionError` naming what is out of range.
    """

    prompt: int = 64
    answer: int = 64
    spread: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("prompt", self.prompt), ("answer", self.answer)):
            if value < 1:
                raise OptionError(f"{name} length {value}: must be at least 1 token")
        if not 0 <= self.spread <= 3:
            raise OptionError(f"spread of lengths {self.spread}: must be 0 to 3")

    def draw(self, random: Random) -> tuple[int, int]:
        """Tokens of one prompt and of its answer."""
        return self._one(self.prompt, random), self._one(self.answer, random)

    def _one(self, median: int, random: Random) -> int:
        if not self.spread:
            return median
        return max(1, round(random.lognormvariate(math.log(median), self.spread)))

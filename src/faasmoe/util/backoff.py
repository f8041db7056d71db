"""Exponential backoff: growing pauses between attempts that fail."""

from __future__ import annotations

import random
import time
from collections.abc import Callable


class Backoff:
    """Each pause is twice as long as the last, up to a limit, and cut by up to half at random (jitter).

    Pauses begin with the shortest again after `success`, or after a time without failures. Its methods do not wait.
    """

    def __init__(
        self,
        first: float,
        most: float,
        calm: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`first`, `most`: shortest and longest pause; `calm`: time without a failure; all in seconds."""
        self._first = first
        self._most = most
        self._calm = calm
        self._clock = clock
        self._chance = chance
        self._next = first
        self._until = 0.0  # end of the last pause

    def failed(self) -> float:
        """Count a failed attempt. Returns the seconds to wait before the next one."""
        now = self._clock()
        if now > self._until + self._calm:
            self._next = self._first
        pause = self._next * (0.5 + self._chance() / 2)
        self._next = min(self._most, 2 * self._next)
        self._until = now + pause
        return pause

    def success(self) -> None:
        """Begin with the shortest pause again."""
        self._next = self._first

    @property
    def left(self) -> float:
        """Seconds until the last pause is over."""
        return max(0.0, self._until - self._clock())

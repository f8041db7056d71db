"""Pauses between tries of what did not work."""

from __future__ import annotations

import random
from collections.abc import Callable

_FIRST = 0.1
_LONGEST = 4.0  # what has been in the way may be gone any moment, and requests wait
_JITTER = 0.25


class Pauses:
    """Each pause is twice as long as the one before, up to `_LONGEST` seconds, and up to a quarter longer by chance.

    Chance keeps those that failed together from trying again together.
    """

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        """`chance` returns a number from 0 to 1."""
        self._chance = chance
        self._next = _FIRST

    def next(self) -> float:
        """Seconds to wait before the next try."""
        pause, self._next = self._next, min(2 * self._next, _LONGEST)
        return pause * (1 + _JITTER * self._chance())

    def reset(self) -> None:
        """It has worked: the next pause is the first one again."""
        self._next = _FIRST

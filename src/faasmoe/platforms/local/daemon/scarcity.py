"""Whether the system refuses the pool processes or descriptors: pids.max, RLIMIT_NPROC, RLIMIT_NOFILE, a full disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from faasmoe.util.backoff import Backoff

_LATELY = 10.0  # seconds
_CALM = 2.0  # seconds without a failure, after which pauses begin with the shortest again
_PAUSES = (0.1, 1.0)  # seconds between attempts, unless an instance ends before


class Scarcity:
    """Noted when an instance could not be started, until one could. Nothing here waits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.why = ""  # empty: there is none
        self.due = False  # a pause comes before the next attempt
        self._clock = clock
        self._backoff = Backoff(*_PAUSES, calm=_CALM, clock=clock)
        self._failed = -math.inf

    @property
    def lately(self) -> bool:
        """Whether there is or was one a short time ago: what ended then may have ended for it."""
        return self._clock() - self._failed < _LATELY

    def failed(self, why: str) -> None:
        """An instance could not be started."""
        self.why, self.due, self._failed = why, True, self._clock()
        self._backoff.failed()

    def pause(self) -> float:
        """Seconds to wait before the next attempt, which may be made then."""
        self.due = False
        return self._backoff.left

    def over(self) -> None:
        """One could be started."""
        self.why, self.due = "", False

"""The time of day as bills and budgets need it: a jump of the clock that is undone soon is not seen."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

STEP = 60.0  # seconds by which the clock may be set and is followed at once
PATIENCE = 600.0  # seconds for which a larger jump has to last before it is believed


def since_boot() -> float:
    """Seconds that nobody sets, and in which a machine that sleeps counts too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Calendar:
    """Seconds since the epoch. May be called by several threads.

    Goes on by `clock`, which nobody sets, and follows `source`, which somebody may set: at once if the two differ by
    little, else when they have differed by the same for a while. So a wrong answer from a time server neither begins a
    month nor puts records into another one.
    """

    def __init__(self, source: Callable[[], float] = time.time, clock: Callable[[], float] = since_boot) -> None:
        self._source = source
        self._clock = clock
        self._lock = threading.Lock()  # guards what follows
        self._at, self._when = source(), clock()  # the same moment by both
        self._off, self._since = 0.0, self._when  # by how much the source differs, and since when

    def __call__(self) -> float:
        """The time, in seconds since the epoch."""
        with self._lock:
            told, now = self._source(), self._clock()
            expected = self._at + now - self._when
            off = told - expected
            if abs(off) <= STEP:
                self._follow(told, now)
                return told
            if abs(off - self._off) > STEP:
                self._off, self._since = off, now
            if now - self._since < PATIENCE:
                return expected
            log.warning("the clock was set by %+.0f seconds, and stayed so: records follow it from now on", off)
            self._follow(told, now)
            return told

    def _follow(self, told: float, now: float) -> None:
        self._at, self._when, self._off = told, now, 0.0

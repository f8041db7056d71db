"""The CPU time that measuring may take."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT = 0.03  # of a core is what measuring may take
SHARE = 0.025  # of a core is what it aims at: a walk through page tables may take longer than it did before
MOST_SAVED = 0.1  # seconds of CPU time that can be saved for when much happens

Clock = Callable[[], float]  # seconds


class MeterBudget:
    """CPU time of this process, of which it may use `share` of one core.

    What is not used can be used later, up to `most` seconds of it; what was used too much has to be earned again.
    """

    def __init__(
        self, share: float, most: float, wall: Clock = time.monotonic, cpu: Clock = time.process_time
    ) -> None:
        self._share = share
        self._most = most
        self._wall, self._cpu = wall, cpu
        self._left = 0.0
        self._then, self._began = wall(), cpu()
        self._used = 0.0

    @property
    def used(self) -> float:
        """Seconds of CPU time since the beginning."""
        return self._cpu() - self._began

    def left(self) -> float:
        """Seconds of CPU time that may be used now; less than 0 if too many were."""
        now, used = self._wall(), self.used
        self._left = min(self._most, self._left + self._share * (now - self._then)) - (used - self._used)
        self._then, self._used = now, used
        return self._left

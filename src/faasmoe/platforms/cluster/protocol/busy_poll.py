"""Busy polling: looking again and again for a moment instead of sleeping at once, as a core takes time to wake.

See decision 36.
"""

from __future__ import annotations

import os
import select
import time

AWAKE = 500e-6  # seconds of looking; a core takes 25 us to wake (`python -m benchmarks.bare`)


class BusyPoll:
    """Waits for the same thing again and again: awake, if it came soon the last time.

    Whoever else has work for the core gets it in between.
    """

    def __init__(self) -> None:
        self._soon = True

    def wait(self, poll: select.poll, seconds: float | None) -> list[tuple[int, int]]:
        """What `poll` has to tell, as its `poll` does, within so many seconds."""
        look, clock = poll.poll, time.monotonic
        began = clock()
        if self._soon:
            while clock() < began + AWAKE:
                if ready := look(0):
                    return ready
                os.sched_yield()
        ready = look(None if seconds is None else seconds * 1000)
        self._soon = clock() < began + AWAKE
        return ready

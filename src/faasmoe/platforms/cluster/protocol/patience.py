"""Waiting awake: for a moment without sleep, as a core takes longer to wake than a short call to be answered."""

from __future__ import annotations

import os
import select
import time

AWAKE = 200e-6  # seconds; waking takes 20 to 30 us at each end (`python -m benchmarks.bare`)


class Patience:
    """Waits for the same thing again and again: awake, if the last time it came soon.

    Whoever has work for the core gets it in between.
    """

    def __init__(self) -> None:
        self._awake = True

    def wait(self, poll: select.poll, seconds: float | None) -> list[tuple[int, int]]:
        """What `poll` has to tell, within so many seconds."""
        look, clock = poll.poll, time.monotonic
        began = clock()
        if self._awake:
            end = began + AWAKE
            while True:
                if ready := look(0):
                    return ready
                if clock() >= end:
                    break
                os.sched_yield()
        ready = look(None if seconds is None else seconds * 1000)
        self._awake = clock() < began + AWAKE
        return ready

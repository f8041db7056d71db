"""Busy polling: looking again and again for a moment instead of sleeping at once, as a core takes time to wake.

See decision 36.
"""

from __future__ import annotations

import os
import select
import threading
import time

AWAKE = 5e-3  # seconds; a core takes 25 us to wake (`python -m benchmarks.bare`), and its caches longer

_turn = threading.Lock()  # several threads that look would keep the interpreter from those that work


class BusyPoll:
    """Waits for the same thing again and again: awake, if it came soon the last time, and no other thread does so.

    Whoever else has work for the core gets it in between.
    """

    def __init__(self) -> None:
        self._soon = True

    def wait(self, poll: select.poll, seconds: float | None) -> list[tuple[int, int]]:
        """What `poll` has to tell, as its `poll` does, within so many seconds."""
        began = time.monotonic()
        if self._soon and _turn.acquire(blocking=False):
            try:
                if ready := _look(poll, began + AWAKE):
                    return ready
            finally:
                _turn.release()
        ready = poll.poll(None if seconds is None else seconds * 1000)
        self._soon = time.monotonic() < began + AWAKE
        return ready


def _look(poll: select.poll, until: float) -> list[tuple[int, int]]:
    while time.monotonic() < until:
        if ready := poll.poll(0):
            return ready
        os.sched_yield()
    return []

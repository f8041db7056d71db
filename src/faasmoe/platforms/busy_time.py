"""The time in which an instance works, split between the calls that it runs side by side."""

from __future__ import annotations


class BusyTime:
    """While n calls run, each has an n-th of the time: all shares together are the time in which any ran.

    Times are nanoseconds of one clock. Not locked.
    """

    def __init__(self) -> None:
        self._running = 0
        self._each = 0  # what a call that had always been there would have by now
        self._changed = 0  # when the number of calls last did

    def begin(self, now: int) -> int:
        """A call begins to run. Returns what `end` wants to know of it."""
        self._advance(now)
        self._running += 1
        return self._each

    def end(self, now: int, begun: int) -> int:
        """It has run. Returns its share."""
        self._advance(now)
        self._running -= 1
        return self._each - begun

    def _advance(self, now: int) -> None:
        if self._running:
            self._each += (now - self._changed) // self._running
        self._changed = now

"""The time in which an instance works, split between the calls that it runs side by side."""

from __future__ import annotations


class BusyTime:
    """While n calls run, each gets an n-th of the time. The sum of all shares is the time in which any call ran.

    Times are nanoseconds of one clock. Not locked.
    """

    def __init__(self) -> None:
        self._running = 0
        self._each = 0  # the share of a call that has run since the beginning
        self._changed = 0  # when the number of calls changed last

    def begin(self, now: int) -> int:
        """Count a call that begins. Returns the value that `end` needs."""
        self._advance(now)
        self._running += 1
        return self._each

    def end(self, now: int, begun: int) -> int:
        """Count the end of the call for which `begin` returned `begun`. Returns its share of the time."""
        self._advance(now)
        self._running -= 1
        return self._each - begun

    def _advance(self, now: int) -> None:
        if self._running:
            self._each += (now - self._changed) // self._running
        self._changed = now

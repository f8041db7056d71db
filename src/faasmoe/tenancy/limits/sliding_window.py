"""A sum over the last minute: a plain data structure that is told the time."""

from __future__ import annotations

from collections import deque

SECONDS = 60.0
_SLOT = 0.1  # seconds: what comes so close together is kept as one, and forgotten with the last of it


class SlidingWindow:
    """Amounts of the last `SECONDS`. What is admitted by `wait` never adds up to more than a limit in any such time.

    `now` is in seconds and never goes back. Memory is bounded by the slots of a minute, however much there is.
    """

    def __init__(self) -> None:
        self._slots: deque[list[float]] = deque()  # [first time, last time, amount]
        self._total = 0.0

    def total(self, now: float) -> float:
        """The amount in the window that ends now."""
        while self._slots and self._slots[0][1] + SECONDS <= now:
            self._total -= self._slots.popleft()[2]
        return self._total

    def add(self, amount: float, now: float) -> None:
        """Something happened."""
        self.total(now)
        self._total += amount
        if self._slots and now - self._slots[-1][0] < _SLOT:
            self._slots[-1][1] = now
            self._slots[-1][2] += amount
        else:
            self._slots.append([now, now, amount])

    def take_back(self, amount: float, when: float) -> None:
        """Remove an amount that was added at `when`."""
        for slot in reversed(self._slots):
            if slot[0] <= when:
                if when <= slot[1]:
                    slot[2] -= amount
                    self._total -= amount
                return

    def wait(self, amount: float, limit: float, now: float) -> float:
        """Seconds until `amount` more is within `limit`, 0 if it is now. It has to be no more than the limit."""
        excess = self.total(now) + amount - limit
        if excess <= 0:
            return 0.0
        for _, last, held in self._slots:
            excess -= held
            if excess <= 0:
                return min(SECONDS, max(0.0, last + SECONDS - now))  # sums of floats are not exact
        return SECONDS

    def reset(self, now: float) -> float:
        """Seconds until the window is empty."""
        self.total(now)
        return self._slots[-1][1] + SECONDS - now if self._slots else 0.0

"""Whether the system refuses the pool processes or descriptors: pids.max, RLIMIT_NPROC, RLIMIT_NOFILE, a full disk."""

from __future__ import annotations

from faasmoe.platforms.local.backoff import Backoff

_PAUSES = (0.1, 2.0)  # seconds between attempts, unless an instance ends before


class Scarcity:
    """Noted when an instance could not be started, until one could. Nothing here waits."""

    def __init__(self, backoff: Backoff | None = None) -> None:
        self.why = ""  # empty: there is none
        self.due = False  # a pause comes before the next attempt
        self._backoff = backoff or Backoff(*_PAUSES)

    def failed(self, why: str) -> None:
        """An instance could not be started."""
        self.why, self.due = why, True
        self._backoff.failed()

    def pause(self) -> float:
        """Seconds to wait before the next attempt, which may be made then."""
        self.due = False
        return self._backoff.left

    def over(self) -> None:
        """One could be started."""
        self.why, self.due = "", False
        self._backoff.success()

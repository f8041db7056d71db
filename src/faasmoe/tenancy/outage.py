"""What keeps a loop in the background from its work, while it does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from faasmoe.errors import FaasmoeError, brief

log = logging.getLogger(__name__)

_QUIET_SECONDS = 60.0  # between two outages that are logged


class Outage:
    """Failures of one loop: counted, and logged once for as long as they go on.

    `consequence` is what does not happen meanwhile, in a few words. Methods are for the loop's own thread; any may
    read the attributes.
    """

    def __init__(
        self, consequence: str, level: int = logging.WARNING, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._consequence = consequence
        self._level = level
        self._clock = clock
        self._told = float("-inf")
        self.cause: str | None = None  # None while all is well
        self.failures = 0  # so far

    def failed(self, error: Exception) -> None:
        """An attempt has failed."""
        self.failures += 1
        begins, self.cause = self.cause is None, reason(error)
        now = self._clock()
        if begins and now - self._told >= _QUIET_SECONDS:
            self._told = now
            log.log(self._level, "%s: %s", self._consequence, self.cause)

    def over(self) -> None:
        """An attempt has succeeded."""
        self.cause = None


def reason(error: Exception) -> str:
    """Why something failed, for people: our own errors explain themselves, others need their kind."""
    return brief(error) if isinstance(error, FaasmoeError) else f"{type(error).__name__}: {brief(error)}"

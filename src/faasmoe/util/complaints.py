"""Failures of background work, counted, and logged now and then."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

_AGAIN_SECONDS = 60.0
_MOST_CAUSES = 100


class Complaints:
    """Logs each cause at once, and again after a minute with the number of times that it came in between."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[str] = Counter()
        self._log = log
        self._clock = clock
        self._logged: dict[str, tuple[float, int]] = {}  # when, and the count then

    def note(self, what: str, error: BaseException | str) -> None:
        """`what` has failed because of `error`. Of an `OSError` only the reason is logged, not the file."""
        cause = f"{what}: {reason_of(error)}"
        if cause not in self.counts and len(self.counts) >= _MOST_CAUSES:
            cause = what
        self.counts[cause] += 1
        count, now = self.counts[cause], self._clock()
        last, before = self._logged.get(cause, (None, 0))
        if last is None or now - last >= _AGAIN_SECONDS:
            self._logged[cause] = now, count
            times = f" ({count - before} times)" if count - before > 1 else ""
            self._log.warning("%s%s", cause, times)


def reason_of(error: BaseException | str) -> str:
    """Why something failed, without the name of a file."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)

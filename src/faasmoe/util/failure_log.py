"""Failures of background work, which is tried again: counted, and logged now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from faasmoe.errors import FaasmoeError, brief

_AGAIN_SECONDS = 60.0
_MOST_CAUSES = 100


@dataclass(slots=True)
class _Logged:
    at: float
    left_out: int = 0  # failures since


class FailureLog:
    """Logs each cause at once, and again after a minute with the number of its failures since.

    Methods are for one thread; any may read the attributes.
    """

    def __init__(
        self, log: logging.Logger, level: int = logging.WARNING, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.count = 0  # of all failures
        self.cause: str | None = None  # of the last failure; None once the work has succeeded
        self._log = log
        self._level = level
        self._clock = clock
        self._logged: dict[str, _Logged] = {}  # by line

    def failed(self, consequence: str, error: BaseException | str) -> None:
        """An attempt has failed because of `error`. `consequence`: what does not work meanwhile, in a few words."""
        self.count += 1
        self.cause = reason_of(error)
        line, now = f"{consequence}: {self.cause}", self._clock()
        if line not in self._logged and len(self._logged) >= _MOST_CAUSES:
            line = consequence
        last = self._logged.get(line)
        if last is not None and now - last.at < _AGAIN_SECONDS:
            last.left_out += 1
            return
        times = f" ({last.left_out + 1} times)" if last is not None and last.left_out else ""
        self._logged[line] = _Logged(now)
        defect = None if isinstance(error, (str, FaasmoeError, OSError)) else error
        self._log.log(self._level, "%s%s", line, times, exc_info=defect)

    def succeeded(self) -> None:
        """An attempt has succeeded."""
        self.cause = None


def reason_of(error: BaseException | str) -> str:
    """Why something failed, on one line: an error of the system without the name of a file, a defect with its type."""
    if isinstance(error, str):
        return error
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return brief(error) if isinstance(error, FaasmoeError) else f"{type(error).__name__}: {brief(error)}"

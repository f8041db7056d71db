"""A call that has no reply yet: its attempts, and the patience after which its instance is suspected to hang."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass

from faasmoe.errors import DeadlineExceeded, PlatformError
from faasmoe.platforms.local.client.call_buffers import EncodedCall
from faasmoe.platforms.local.client.connections import Connection
from faasmoe.platforms.local.protocol.messages import NAME
from faasmoe.util.liveness import LATE

_MOST_ATTEMPTS = 20  # an instance that dies this often within one call will not live
_MOST_LOADS = 3  # attempts at a function that cannot be loaded
TICK = 0.25  # seconds; the longest wait between two looks at all calls


@dataclass(slots=True)
class PendingCall:
    """A call, and its current attempt."""

    index: int
    function: str
    encoded: EncodedCall
    work: float
    _: KW_ONLY
    connection: Connection | None = None
    attempts: int = 1
    loads: int = 0
    cause: str = ""
    waited: float = 0.0  # seconds that the caller has run while it waited for this attempt
    patience: float = 0.0  # of them, after which the instance is suspected; 0: not looked up yet

    def tires(self, connection: Connection, seconds: float) -> bool:
        """Count `seconds` of waiting. True: its instance is to be suspected, the next time after twice as long."""
        self.waited += seconds
        self.patience = self.patience or connection.patience(self.work)
        if self.waited < self.patience:
            return False
        self.patience *= 2
        return True

    def try_again(self) -> None:
        """Count another attempt after `cause`. Raises `PlatformError` if there were too many."""
        if self.attempts >= _MOST_ATTEMPTS:
            raise PlatformError(NAME, self.function, f"{self.attempts} attempts failed; {self.cause}")
        self.attempts += 1

    def not_loaded(self, text: str) -> None:
        """An instance could not load the function. Raises `PlatformError` if that has happened too often."""
        self.loads += 1
        self.cause = f"it cannot be loaded: {text}"
        if self.loads >= _MOST_LOADS:
            raise PlatformError(NAME, self.function, f"{self.cause} ({self.loads} attempts)")


def too_late(waiting: Sequence[PendingCall]) -> DeadlineExceeded:
    """The error of a batch in which these calls have no reply at the deadline."""
    worst = max(waiting, key=lambda pending: pending.attempts)
    cause = worst.cause or ("it has not answered" if worst.connection else "it waits for an instance")
    tried = "1 attempt" if worst.attempts == 1 else f"{worst.attempts} attempts"
    return DeadlineExceeded(NAME, worst.function, f"no answer within the deadline after {tried}: {cause}")


class AwakeTime:
    """The time in which a caller has run while it waited, without the time in which it was frozen."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = 0.0
        self.frozen = 0.0  # seconds since `begin`

    def begin(self, now: float) -> None:
        """Waiting began at `now`."""
        self._last, self.frozen = now, 0.0

    def pass_(self, planned: float) -> float:
        """Return the seconds since the last call; `planned`, the seconds to wait, if the caller was frozen since."""
        last, self._last = self._last, self._clock()
        took = self._last - last
        if took < planned + LATE:
            return took
        self.frozen += took - planned
        return planned

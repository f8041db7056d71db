"""A call that has no reply yet, and how long it is waited for before its instance is suspected to hang."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from faasmoe.platforms.local.client.call_buffers import EncodedCall
from faasmoe.platforms.local.client.connections import Connection
from faasmoe.util.liveness import LATE

TICK = 0.25  # seconds; the longest wait between two looks at all calls


@dataclass(slots=True)
class Pending:
    """A call, and its current attempt."""

    index: int
    function: str
    letter: EncodedCall
    work: float
    connection: Connection | None = None
    attempts: int = 1
    loads: int = 0
    cause: str = ""
    waited: float = 0.0  # seconds that the caller has run while it waited for this attempt
    patience: float = 0.0  # of them, after which the instance is suspected; 0: not looked up yet

    def tires(self, connection: Connection, seconds: float) -> bool:
        """So many more were waited. True: the instance should be suspected, the next time after twice as long."""
        self.waited += seconds
        self.patience = self.patience or connection.patience(self.work)
        if self.waited < self.patience:
            return False
        self.patience *= 2
        return True


class AwakeTime:
    """What a caller lives through while it waits: time in which it was frozen is told apart."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = 0.0
        self.frozen = 0.0  # seconds since `begin`

    def begin(self, now: float) -> None:
        """Waiting begins, or has begun."""
        self._last, self.frozen = now, 0.0

    def pass_(self, planned: float) -> float:
        """Returns seconds since the last call, of which `planned` were to be waited. No more if it was frozen since."""
        last, self._last = self._last, self._clock()
        took = self._last - last
        if took < planned + LATE:
            return took
        self.frozen += took - planned
        return planned

"""A clock that tests set."""

from __future__ import annotations


class Clock:
    """Seconds, as `time.monotonic` tells them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

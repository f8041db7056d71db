"""The usage of a request: its part of the costs of each step, and its own CPU time."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from faasmoe.engine.experts.costs import COSTS
from faasmoe.protocol.request import ResourceUsage


class RequestUsage:
    """The usage of one request up to now. For the engine's thread.

    While it is entered (`with usage:`), the thread's CPU time is the request's alone.
    """

    def __init__(self) -> None:
        self._costs = np.zeros(len(COSTS))
        self._cpu = 0.0  # seconds
        self._entered: float | None = None  # when, in `time.thread_time`

    def add(self, costs: NDArray[np.float64], cpu_seconds: float) -> None:
        """Add the request's part of a step. `costs` are in the order of `COSTS`."""
        self._costs += costs
        self._cpu += cpu_seconds

    def read(self) -> ResourceUsage:
        """The usage so far."""
        now = 0.0 if self._entered is None else time.thread_time() - self._entered
        invocations, expert_seconds, gb_seconds, cold_starts = self._costs.tolist()
        return ResourceUsage(invocations, expert_seconds, gb_seconds, cold_starts, self._cpu + now)

    def __enter__(self) -> None:
        self._entered = time.thread_time()

    def __exit__(self, *_: object) -> None:
        if self._entered is not None:
            self._cpu += time.thread_time() - self._entered
        self._entered = None

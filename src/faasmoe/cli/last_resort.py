"""Ends a process that does not end by itself."""

from __future__ import annotations

import logging
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger(__name__)

LATE = 70  # exit status of a process that did not end in time: an internal software error, as sysexits.h has it
CLOSE_SECONDS = 4.5  # that a process may take to end, beyond what its requests get
_KERNELS_SECONDS = 0.5  # after which the kernel ends it, should this thread not run
LONGEST_CLOSE = CLOSE_SECONDS + _KERNELS_SECONDS
_HANGING_SECONDS = 0.5  # that threads may take to end when everything is closed


class LastResort:
    """A thread that kills this process and its children when their time is over. `kill` gets the exit status."""

    def __init__(
        self, kill: Callable[[int], None] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kill = kill or kill_all
        self._clock = clock
        self._orders: queue.SimpleQueue[tuple[float, int]] = queue.SimpleQueue()  # may be used by signal handlers

    def start(self) -> None:
        """Watch from now on. At once, since later there may be no thread to be had."""
        threading.Thread(target=self.watch, name="last resort", daemon=True).start()

    def within(self, seconds: float) -> None:
        """The process is to end within so many seconds and some to close. Of several such orders the strictest holds.

        May be called by signal handlers.
        """
        left = seconds + CLOSE_SECONDS
        before = signal.getitimer(signal.ITIMER_REAL)[0]
        if not before or left + _KERNELS_SECONDS < before:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, left + _KERNELS_SECONDS)
        self._orders.put((self._clock() + left, LATE))

    def closed(self, status: int) -> None:
        """Everything is closed. Threads that hang keep the process no longer; it ends with `status`."""
        self._orders.put((self._clock() + _HANGING_SECONDS, status))

    def watch(self) -> None:
        """What the thread does."""
        end, status = math.inf, LATE
        while (left := end - self._clock()) > 0:
            with suppress(queue.Empty):
                ordered, its = self._orders.get(timeout=None if left == math.inf else left)
                end = min(end, ordered)
                status = its if status == LATE else status
        self._kill(status)


def kill_all(status: int) -> None:
    """End this process as it is, and all that it has started."""
    try:
        if status == LATE:
            log.critical("the server has not ended in time; it and its processes are killed")
        kill_children()
    finally:
        os._exit(status)


def kill_children() -> None:
    """Kill what this process has started, and what that has."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()

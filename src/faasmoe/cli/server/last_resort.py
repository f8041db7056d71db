"""Ends a process that does not end by itself."""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial

log = logging.getLogger(__name__)

LATE = 70  # exit status of a process that did not end in time: an internal software error, as sysexits.h has it
CLOSE_SECONDS = 4.5  # that a process may take to end, beyond what its requests get
_KERNELS_SECONDS = 0.5  # after which the kernel ends it, should the thread not run
LONGEST_CLOSE = CLOSE_SECONDS + _KERNELS_SECONDS
_HANGING_SECONDS = 0.5  # that threads may take to end when everything is closed
_CLOSED = 0  # no signal has this number


class LastResort:
    """A thread that kills this process and its children when their time is over.

    It hears of signals `numbers` by itself, through Python's wake-up descriptor: handlers run in the main thread, which
    may be stuck. `grace` is for how many seconds requests may go on after the first of them. `kill` gets the exit
    status, `alarm` the seconds after which the kernel is to end the process.
    """

    def __init__(
        self,
        numbers: Collection[int],
        kill: Callable[[int], None] | None = None,
        alarm: Callable[[float], object] = partial(signal.setitimer, signal.ITIMER_REAL),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._numbers = numbers
        self._kill = kill or kill_all
        self._alarm = alarm
        self._clock = clock
        self._end = math.inf
        self._told = False  # by a signal, to end
        self._status = LATE
        self.grace = 0.0

    def start(self) -> None:
        """Watch from now on; for the main thread. At once, since later there may be no thread to be had."""
        reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), name="last resort", daemon=True).start()

    def closed(self, status: int) -> None:
        """Everything is closed. Threads that hang keep the process no longer; it ends with `status`."""
        self._status = status
        os.write(self._writing, bytes([_CLOSED]))

    def note(self, numbers: bytes) -> float:
        """These signals have come, or `_CLOSED`. Returns the seconds that are left: of several limits the strictest."""
        for number in numbers:
            if number == _CLOSED:
                self._end = min(self._end, self._clock() + _HANGING_SECONDS)
            elif number in self._numbers:
                left = CLOSE_SECONDS + (0 if self._told else self.grace)
                self._told = True
                if self._clock() + left < self._end:
                    self._end = self._clock() + left
                    self._alarm(left + _KERNELS_SECONDS)
        return self._end - self._clock()

    def _watch(self, reading: int) -> None:
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        left = math.inf
        while left > 0:
            came = poll.poll(None if left == math.inf else math.ceil(left * 1000))
            left = self.note(os.read(reading, 4096) if came else b"")
        self._kill(self._status)


def kill_all(status: int) -> None:
    """End this process as it is, and all that it has started."""
    try:
        kill_children()
        if status == LATE:  # last, since whoever reads the log may be what hangs
            log.critical("the server has not ended in time; it is killed with its processes")
    finally:
        os._exit(status)


def kill_children() -> None:
    """Kill what this process has started, and what that has."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()

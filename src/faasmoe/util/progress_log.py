"""Progress of long work in the log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

_SECONDS = 5.0  # between log lines


def progress_log(log: logging.Logger, what: str, total: int) -> Callable[[int], None]:
    """A function that takes what was done since its last call, and logs `what` and the share of `total` now and then.

    It may be called by several threads. Work that is done within seconds logs nothing.
    """
    lock, done, said = threading.Lock(), 0, time.monotonic()

    def advance(more: int) -> None:
        nonlocal done, said
        with lock:
            done += more
            if time.monotonic() > said + _SECONDS:
                said = time.monotonic()
                log.info("%s: %d %% done", what, 100 * done // total)

    return advance

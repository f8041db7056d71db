"""The thread that renews a certificate in time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from faasmoe.errors import OptionError
from faasmoe.platforms.local.protocol.wire import Lost
from faasmoe.util.backoff import Backoff
from faasmoe.util.closeable import Closeable

log = logging.getLogger(__name__)

PERIOD = 3600.0  # seconds between looks whether it is time
SOON = 1.0  # seconds until something is tried again that has just failed
_LONGEST_PAUSE = 60.0  # seconds between attempts that fail


class Renewal(Closeable):
    """Does `renew` each hour, and again soon where that has failed. `renew` raises `Lost` or `OptionError`."""

    def __init__(self, renew: Callable[[], None], first: float = PERIOD, period: float = PERIOD) -> None:
        """`first` and `period` are in seconds."""
        self._renew = renew
        self._first = first
        self._period = period
        self._backoff = Backoff(SOON, _LONGEST_PAUSE)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="renewal", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        pause = self._first
        while not self._closed.wait(pause):
            try:
                self._renew()
                pause = self._period
                self._backoff.success()
            except (Lost, OptionError) as error:
                log.warning("the certificate could not be looked after: %s", error)
                pause = self._backoff.failed()

    def close(self) -> None:
        """May be called twice."""
        self._closed.set()
        self._thread.join()

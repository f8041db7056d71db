"""What ties the daemon to an instance: a socket of which each side notices the other's end, and a page of figures."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from faasmoe.platforms.local.protocol.stats_page import StatsTable

_DRAIN_SECONDS = 35.0  # a little more than an instance takes by itself


class InstanceChannel:
    """The daemon's end. `theirs` is for the instance, as is the record's `slot`. Raises `OSError` if none is left."""

    def __init__(self, table: StatsTable) -> None:
        self._table = table
        self.slot, self.record, self._page = table.take()
        try:
            self._ours, self.theirs = socket.socketpair()
        except OSError:
            table.free(self.slot)
            raise
        self._ours.setblocking(False)
        self._ultimatum: asyncio.TimerHandle | None = None

    def listen(self, heard: Callable[[bool], None]) -> None:
        """`heard` is called when the instance reports the end of a call, and with True when it is about to end."""
        asyncio.get_running_loop().add_reader(self._ours, self._hear, heard)

    def _hear(self, heard: Callable[[bool], None]) -> None:
        try:
            ending = not self._ours.recv(4096)
        except BlockingIOError:
            return
        except ConnectionError:
            ending = True
        if ending:
            asyncio.get_running_loop().remove_reader(self._ours)
        heard(ending)

    def drain(self, too_slow: Callable[[], None]) -> None:
        """Have the instance finish what it runs. `too_slow` is called if it still lives when it should have ended."""
        with suppress(OSError):
            self._ours.shutdown(socket.SHUT_WR)
        if self._ultimatum is None:
            self._ultimatum = asyncio.get_running_loop().call_later(_DRAIN_SECONDS, too_slow)

    def close(self) -> None:
        """The instance has ended: nothing is heard of it any more, and its record must not be read."""
        if self._ultimatum:
            self._ultimatum.cancel()
        asyncio.get_running_loop().remove_reader(self._ours)
        self._ours.close()
        self._table.free(self.slot)

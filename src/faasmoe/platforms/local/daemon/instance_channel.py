"""The channel between the daemon and an instance: a socket that tells each of the other's end, and a stats page."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from faasmoe.platforms.local.protocol.stats_page import StatsTable

_BACKLOG = 256  # callers that may wait for an instance to load
_DRAIN_SECONDS = 35.0  # a little more than an instance takes by itself


def listen_at(path: str) -> socket.socket:
    """The socket that an instance takes calls on. Raises `OSError`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class InstanceChannel:
    """The daemon's end, and what the instance gets of it: `descriptors`, and the `slot` of its `record`."""

    def __init__(self, table: StatsTable, path: str, listen: Callable[[str], socket.socket] = listen_at) -> None:
        """The instance will take calls at `path`. Raises `OSError` if there is no descriptor or memory for it."""
        self._table = table
        self._path = path
        with ExitStack() as undo:
            self.slot, self.record, self._page = table.take()
            undo.callback(table.free, self.slot)
            self._ours, self._theirs = socket.socketpair()
            undo.callback(self._ours.close)
            undo.callback(self._theirs.close)
            undo.callback(self._unlink)
            self._listener = listen(path)
            undo.pop_all()
        self._ours.setblocking(False)
        self.descriptors = [self._listener.fileno(), self._theirs.fileno(), table.fd]
        self._ultimatum: asyncio.TimerHandle | None = None

    def handed_over(self) -> None:
        """The instance has its descriptors."""
        self._theirs.close()
        self._listener.close()

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
        self._unlink()
        with suppress(OSError):
            self._ours.shutdown(socket.SHUT_WR)
        if self._ultimatum is None:
            self._ultimatum = asyncio.get_running_loop().call_later(_DRAIN_SECONDS, too_slow)

    def close(self) -> None:
        """The instance has ended: nothing is heard of it any more, and its record must not be read."""
        self._unlink()
        self.handed_over()
        if self._ultimatum:
            self._ultimatum.cancel()
        asyncio.get_running_loop().remove_reader(self._ours)
        self._ours.close()
        self._table.free(self.slot)

    def _unlink(self) -> None:
        with suppress(OSError):  # the next daemon removes it
            Path(self._path).unlink()

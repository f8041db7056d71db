"""Counters that an instance writes and the daemon reads, in a page of memory they share."""

from __future__ import annotations

import mmap
import struct

_INVOCATIONS = struct.Struct("<Q")


class SharedCounters:
    """Made by the daemon before it forks, so that both sides hold the same page."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _INVOCATIONS.size)

    def count_invocation(self) -> None:
        """Called by the instance, its only writer."""
        _INVOCATIONS.pack_into(self._page, 0, self.invocations + 1)

    @property
    def invocations(self) -> int:
        """How many calls the instance has answered."""
        return int(_INVOCATIONS.unpack_from(self._page)[0])

    def close(self) -> None:
        """Give the page back."""
        self._page.close()

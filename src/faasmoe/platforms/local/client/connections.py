"""A client's connections to instances that are not in use, by function."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faasmoe.platforms.local.client.connection import Connection

_SWEEP = 256  # new connections between looks at the old ones


class Connections:
    """Kept from one batch of calls to the next. For one thread."""

    def __init__(self) -> None:
        self._idle: dict[str, list[Connection]] = {}
        self._opened = 0

    def take(self, function: str) -> Connection | None:
        """One to an instance of `function`, if there is one."""
        idle = self._idle.get(function)
        return idle.pop() if idle else None

    def keep(self, function: str, connection: Connection) -> None:
        """Have it for a later call."""
        try:
            self._idle[function].append(connection)
        except KeyError:
            self._idle[function] = [connection]

    def count_opened(self) -> None:
        """One more was opened: now and then a reason to look at the old ones."""
        self._opened += 1
        if self._opened % _SWEEP == 0:
            self.sweep()

    def make_way(self) -> None:
        """Free descriptors: of connections to instances that are gone, or else of all."""
        if not self.sweep():
            self.close()

    def sweep(self) -> int:
        """Close those to instances that are gone: their functions may never be called again. Returns how many."""
        poll = select.poll()
        for idle in self._idle.values():
            for connection in idle:
                poll.register(connection.fd, select.POLLIN)
        gone = {fd for fd, _ in poll.poll(0)}
        for function, idle in list(self._idle.items()):
            for connection in [c for c in idle if c.fd in gone]:
                idle.remove(connection)
                connection.close()
            if not idle:
                del self._idle[function]
        return len(gone)

    def close(self) -> None:
        """Close all. May be called twice."""
        while self._idle:
            for connection in self._idle.popitem()[1]:
                connection.close()

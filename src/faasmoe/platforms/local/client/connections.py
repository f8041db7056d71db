"""A client's connections to instances."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

from faasmoe.platforms.local.client.control import connect
from faasmoe.platforms.local.client.placement import ANY, GRID

_PATIENCE = struct.pack("ll", 0, 8_000)  # seconds and microseconds to wait for one reply before polling all
_CALL = 40e-6  # seconds that an instance takes for a call beside the function's own time
_PACE = 1e-3  # seconds for a unit of work, until a function has shown its own
_PATIENCE_FACTOR, _LEAST_PATIENCE = 20.0, 2.0  # times what a call should take, and seconds
_COLD_PATIENCE, _SLOWEST_DISK = 5.0, 20e6  # seconds, and bytes a second, for a first call
_HASTE = 0.25  # weight of the last call in what is known of the pace
_SWEEP = 256  # new connections between looks at the old ones


class Connection:
    """Carries one call at a time. Knows on which core the instance serves it, and how fast that is."""

    def __init__(self, path: str, scalable: bool, memory: int, seconds: float) -> None:
        """Raises `OSError` if the instance is gone."""
        self.path = path
        self.scalable = scalable  # there may be other instances with less to do
        self.memory = memory  # bytes that the instance counts for
        self.thread = 0  # of the instance, that serves this connection; known after the first reply
        self.core = ANY  # to which that is bound
        self.generation = 0  # of the shared memory that the instance knows
        self.socket = connect(path, seconds)
        self.socket.settimeout(None)  # a timeout of Python's would cost a system call each time
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
        self.fd = self.socket.fileno()
        self._pace = _PACE

    def bind(self, core: int, cores: Sequence[int]) -> None:
        """Have the instance run on `core`, or on any of `cores`, before it is woken."""
        if self.core != core and self.thread:
            self.core = core
            with suppress(OSError):  # it has just died
                os.sched_setaffinity(self.thread, cores if core == ANY else (core,))

    def seconds(self, work: float) -> float:
        """Estimate the seconds of a call, in steps of `GRID`."""
        return round((_CALL + self._pace * work) / GRID) * GRID

    def patience(self, work: float) -> float:
        """Seconds to wait for a reply before the instance is suspected to hang."""
        if not self.thread:  # the first call: it may still be loading its weights
            return _COLD_PATIENCE + self.memory / _SLOWEST_DISK
        return max(_LEAST_PATIENCE, _PATIENCE_FACTOR * self.seconds(work))

    def learn(self, seconds: float, work: float) -> None:
        """Learn the pace from a call that took `seconds` in the function."""
        self._pace += _HASTE * (seconds / (work or 1.0) - self._pace)

    def close(self) -> None:
        """Close the socket, by which the instance knows."""
        self.socket.close()


class Connections:
    """Idle connections by function, kept from one batch of calls to the next. For one thread."""

    def __init__(self) -> None:
        self._idle: dict[str, list[Connection]] = {}
        self._opened = 0

    def take(self, function: str) -> Connection | None:
        """Return an idle connection to an instance of `function`, if there is one."""
        idle = self._idle.get(function)
        return idle.pop() if idle else None

    def keep(self, function: str, connection: Connection) -> None:
        """Keep a connection for a later call."""
        try:
            self._idle[function].append(connection)
        except KeyError:
            self._idle[function] = [connection]

    def count_opened(self) -> None:
        """Count an opened connection, and sweep now and then."""
        self._opened += 1
        if self._opened % _SWEEP == 0:
            self.sweep()

    def make_way(self) -> None:
        """Free descriptors: close connections to instances that are gone, or all if there are none."""
        if not self.sweep():
            self.close()

    def sweep(self) -> int:
        """Close connections to instances that are gone. Returns their number."""
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

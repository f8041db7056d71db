"""A connection to an instance, both of whose ends are in this process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from faasmoe.platforms.local.instance.connection import ServerConnection
from faasmoe.platforms.local.instance.serving import InstanceMemory
from faasmoe.platforms.local.protocol.frame import HEADER, unpack_call
from faasmoe.platforms.local.protocol.stats_page import InstanceStats


@dataclass
class Served:
    """The caller's end, and what the instance has."""

    caller: socket.socket
    daemon: socket.socket  # the other end of the lifeline
    server: ServerConnection
    memory: InstanceMemory
    record: InstanceStats

    def call(self) -> tuple[bytes, bytes | None]:
        """Payload and shared memory of the next call, which must come. It is answered with nothing."""
        assert self.server.next_call()
        payload, shared, _ = self.server.call()
        seen = bytes(payload), None if shared is None else bytes(shared)
        self.server.finish(*self.server.stored(b""))
        self.caller.recv(HEADER, socket.MSG_WAITALL)
        return seen

    def header(self) -> tuple[int, ...]:
        """Of the call that was received last."""
        return unpack_call(self.server._pages)


@contextmanager
def served(concurrency: int = 1) -> Iterator[Served]:
    """A connection without segments."""
    record = InstanceStats()
    lifeline, daemon = socket.socketpair()
    caller, theirs = socket.socketpair()
    with lifeline, daemon, caller, theirs:
        memory = InstanceMemory.of(record, concurrency, lifeline.fileno())
        yield Served(caller, daemon, ServerConnection(theirs, memory), memory, record)

"""Which pool has a node: one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable

from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.messages import HOSTING_LANES, Hello

GRACE = 30.0  # seconds that a node stays with a pool whose head is not heard of


class NodeClaim:
    """A pool has the node from the heartbeat connection of its head on, until that has been gone for `GRACE`.

    Another head may take the node as soon as the connection is gone. Not for several threads at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.pool = ""  # that has the node; empty: none
        self._clock = clock
        self._heads = 0  # heartbeat connections of its head
        self._left = 0.0  # when the last of them ended

    def admit(self, hello: Hello) -> str:
        """Admit a client. Returns the pool that has lost the node by it, or "". Raises `LinkRefused`."""
        if not hello.pool:
            if hello.lane not in ("beat", "orders"):
                raise LinkRefused(f"the lane {hello.lane} needs a pool")
            return ""
        lost = ""
        if hello.head and hello.lane == "beat":
            if self.pool != hello.pool:
                if self._heads:
                    raise LinkRefused(f"another server has the node: that of pool {self.pool}")
                lost, self.pool = self.pool, hello.pool
            self._heads += 1
        elif hello.pool != self.pool:
            raise LinkRefused(f"the node is not with pool {hello.pool}")
        elif hello.lane in ("weights", *HOSTING_LANES) and not hello.head:
            raise LinkRefused(f"the lane {hello.lane} is for the head of the pool")
        return lost

    @property
    def headed(self) -> bool:
        """Whether the head of the node's pool is there."""
        return bool(self._heads)

    def leave(self, hello: Hello) -> None:
        """A connection has ended that was admitted."""
        if hello.head and hello.lane == "beat" and hello.pool == self.pool:
            self._heads -= 1
            self._left = self._clock()

    def expired(self) -> str:
        """The pool whose head has been gone for too long, or "". The node is without a pool from then on."""
        if not self.pool or self._heads or self._clock() < self._left + GRACE:
            return ""
        lost, self.pool = self.pool, ""
        return lost

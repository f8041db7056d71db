"""Whom a node serves: the guests that are there, which pool has the node, and what guests have called."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.agent.batches import Batches
from faasmoe.platforms.cluster.agent.claim import NodeClaim
from faasmoe.platforms.cluster.agent.guest import Guest
from faasmoe.platforms.cluster.authority.identity import Role
from faasmoe.platforms.cluster.authority.revocations import Revocation, RevocationBook
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.messages import Traffic


class Guests:
    """For all threads. One lock has guests and claim, so no guest outlives the claim of its pool."""

    def __init__(self, revoked: RevocationBook, clock: Callable[[], float] = time.monotonic) -> None:
        """`revoked` tells whose certificates are no longer good."""
        self._revoked = revoked
        self._claim = NodeClaim(clock)
        self._lock = threading.Lock()  # of all this
        self._there: dict[Guest, Batches | None] = {}
        self._gone = Traffic()  # of connections that have ended
        self._work: Counter[str] = Counter()  # of their calls, by function

    def admit(self, guest: Guest) -> bool:
        """Take a guest in until it `leaves`. Returns whether another pool has lost the node by it.

        The guests of that one are cut. Raises `LinkRefused`.
        """
        with self._lock:
            self._check(guest)
            lost = self._claim.admit(guest.hello)
            self._cut(lambda each: bool(lost) and each.hello.pool == lost)
            self._there[guest] = None
        return bool(lost)

    def _check(self, guest: Guest) -> None:
        """Raises `LinkRefused` if its certificate was revoked."""
        if guest.peer.role == Role.ORCHESTRATOR:
            try:
                self._revoked.check(guest.peer.name, guest.peer.certificate)
            except OptionError as error:
                raise LinkRefused(str(error)) from error

    def revoke(self, revocations: Iterable[Revocation]) -> None:
        """Refuse certificates from now on, and cut the guests that have shown such ones.

        Raises `OptionError` if that cannot be kept for the next start.
        """
        try:
            self._revoked.learn(revocations)
        finally:
            with self._lock:
                self._cut(self._is_revoked)

    def _is_revoked(self, guest: Guest) -> bool:
        try:
            self._check(guest)
        except LinkRefused:
            return True
        return False

    def leaves(self, guest: Guest) -> None:
        """A guest that was admitted is gone."""
        with self._lock:
            self._there.pop(guest)
            self._claim.leave(guest.hello)

    @contextmanager
    def calling(self, guest: Guest, batches: Batches) -> Iterator[None]:
        """Count the calls of a guest, also when it is gone."""
        with self._lock:
            self._there[guest] = batches
        try:
            yield
        finally:
            with self._lock:
                self._there[guest] = None
                self._gone += batches.traffic
                self._work.update(batches.work)

    def expired(self) -> bool:
        """Whether the pool that had the node has been without its head for too long. Its guests are cut then."""
        with self._lock:
            if lost := self._claim.expired():
                self._cut(lambda each: each.hello.pool == lost)
        return bool(lost)

    def cut(self) -> None:
        """End the connections of all guests."""
        with self._lock:
            self._cut(lambda _: True)

    def _cut(self, condition: Callable[[Guest], bool]) -> None:
        for each in self._there:
            if condition(each):
                each.cut()

    @property
    def pool(self) -> str:
        """The pool that has the node, or had it a moment ago; empty: none."""
        with self._lock:
            return self._claim.pool

    @property
    def headed(self) -> bool:
        """Whether the head of the node's pool is there."""
        with self._lock:
            return self._claim.headed

    @property
    def running(self) -> bool:
        """Whether calls run."""
        with self._lock:
            return any(batches.running for batches in self._calling())

    @property
    def traffic(self) -> Traffic:
        """Of all connections, since the agent was started."""
        with self._lock:
            return sum((batches.traffic for batches in self._calling()), self._gone)

    @property
    def work(self) -> Counter[str]:
        """Of all calls, by function."""
        with self._lock:
            work = Counter(self._work)
            for batches in self._calling():
                work.update(batches.work.copy())
        return work

    def _calling(self) -> list[Batches]:
        return [batches for batches in self._there.values() if batches]

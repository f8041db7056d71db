"""Responses that clients may go on from, kept in the gateway's memory for some time."""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

TTL = 3600.0  # seconds
_MOST, _MOST_BYTES = 256, 16 << 20  # of one tenant
_ALL_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response, and the items of its conversation up to its end: both are JSON."""

    body: bytes
    items: bytes  # a list
    expires: float = 0.0

    @property
    def size(self) -> int:
        """Bytes that count towards the limits."""
        return len(self.body) + len(self.items)


class ResponseStore:
    """Responses by tenant and id. The oldest go first where a tenant, or all of them, have too many."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], StoredResponse] = OrderedDict()
        self._bytes: defaultdict[str, int] = defaultdict(int)
        self._counts: defaultdict[str, int] = defaultdict(int)

    def keep(self, tenant: str, name: str, body: bytes, items: bytes) -> None:
        """Keep a response for `TTL` seconds; one that is larger than a tenant's share is not kept."""
        made = StoredResponse(body, items, self._clock() + TTL)
        if made.size > _MOST_BYTES:
            return
        self.drop(tenant, name)
        self._kept[tenant, name] = made
        self._bytes[tenant] += made.size
        self._counts[tenant] += 1
        while self._counts[tenant] > _MOST or self._bytes[tenant] > _MOST_BYTES:
            self.drop(*next(key for key in self._kept if key[0] == tenant))
        while sum(self._bytes.values()) > _ALL_BYTES or self._expired():
            self.drop(*next(iter(self._kept)))

    def get(self, tenant: str, name: str) -> StoredResponse | None:
        """A tenant's response; None if there is none any more."""
        found = self._kept.get((tenant, name))
        if found is None or found.expires <= self._clock():
            return None
        return found

    def drop(self, tenant: str, name: str) -> bool:
        """Forget a response. Returns whether it was there."""
        found = self._kept.pop((tenant, name), None)
        if found is None:
            return False
        self._bytes[tenant] -= found.size
        self._counts[tenant] -= 1
        if not self._counts[tenant]:
            del self._bytes[tenant], self._counts[tenant]
        return found.expires > self._clock()

    def _expired(self) -> bool:
        first = next(iter(self._kept.values()), None)
        return first is not None and first.expires <= self._clock()

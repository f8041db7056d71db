"""A bounded queue in which tenants take turns. A plain data structure."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from faasmoe.errors import EngineBusy

T = TypeVar("T")

MOST = 4096  # that wait, of all tenants together; `api.http.body_limit` bounds their bytes
MOST_EACH = 1024  # of one tenant; as many may wait for the engine


class FairQueue(Generic[T]):
    """Gives out one item of each tenant in turn, and each tenant's in the order in which they came."""

    def __init__(self, most: int = MOST, most_each: int = MOST_EACH) -> None:
        self._most = most
        self._most_each = most_each
        self._waiting: dict[str, deque[T]] = {}  # whose turn is next comes first; nobody without items
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, tenant: str, item: T) -> None:
        """Raises `EngineBusy` if as many wait as may."""
        own = self._waiting.get(tenant)
        if own is not None and len(own) >= self._most_each:
            raise EngineBusy(f"{len(own)} of this tenant's requests wait to be read already", retry_after=1.0)
        if self._size >= self._most:
            raise EngineBusy(f"{self._size} requests wait to be read already", retry_after=1.0)
        if own is None:
            own = self._waiting[tenant] = deque()
        own.append(item)
        self._size += 1

    def pop(self) -> T:
        """The next one. Raises `IndexError` if there is none."""
        if not self._waiting:
            raise IndexError("nothing waits")
        tenant = next(iter(self._waiting))
        own = self._waiting.pop(tenant)
        item = own.popleft()
        if own:
            self._waiting[tenant] = own  # behind all others
        self._size -= 1
        return item

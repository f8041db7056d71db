"""Splits the cost of idle instances between tenants by the rule of docs/metering.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping


class IdleShares:
    """Splits the GB-seconds of a pool that no answered call has used. A plain data structure.

    In each period they are split by what tenants have used themselves, or, if nobody has used anything, as in the last
    period in which somebody has. So what all tenants pay is what the pool has taken.
    """

    def __init__(self) -> None:
        self._used: dict[str, float] = defaultdict(float)  # by tenant, in this period
        self._weights: dict[str, float] = {}  # of the last period in which anything was used
        self._pool = 0.0  # total at the end of the last period
        self._left = 0.0  # that nobody has paid for; below 0 if calls were reported before the pool's total was

    def note(self, used: Mapping[str, float]) -> None:
        """Tenants have used these GB-seconds themselves."""
        for tenant, gb_seconds in used.items():
            self._used[tenant] += gb_seconds

    def split(self, pool: float) -> dict[str, float]:
        """The period ends. `pool` are the GB-seconds that instances have lived since the pool's start.

        Returns what tenants owe beyond what they have used. A total below the last one is that of a new pool.
        """
        used, self._used = self._used, defaultdict(float)
        self._left += pool - self._pool if pool >= self._pool else pool
        self._left -= sum(used.values())
        self._pool = pool
        if any(used.values()):
            self._weights = used
        total = sum(self._weights.values())
        if self._left <= 0 or not total:
            return {}
        left, self._left = self._left, 0.0
        # the quotient first: the smallest numbers that there are lose half of a product
        return {tenant: left * (weight / total) for tenant, weight in self._weights.items()}

"""How much of their budgets tenants have used this month, as a server knows it without asking the database.

The ledger's sums are read now and then, for other servers write into it too; what this one has added to the ledger
since is counted in memory.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from decimal import Decimal

from faasmoe.tenancy.budget import Budget, month_of
from faasmoe.tenancy.database import Database
from faasmoe.tenancy.ledger import MOST_KEPT, Entry
from faasmoe.tenancy.prices import Prices
from faasmoe.tenancy.totals import Totals
from faasmoe.tenancy.usage import counted, sums

REFRESH_SECONDS = 60.0
_SETTLED_SECONDS = 10.0  # after which what was added to the ledger is in the database


class Spending:
    """What of this month the ledger has. Noted by the server's thread, refreshed by any other.

    `calendar` is seconds since the epoch.
    """

    def __init__(
        self, database: Database, prices: Prices | None, calendar: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._prices = prices
        self._calendar = calendar
        self._lock = threading.Lock()  # guards what follows
        self._month = 0.0  # when it began
        self._since: deque[Entry] = deque(maxlen=MOST_KEPT)
        self._now: dict[str, Totals] = {}  # by tenant

    def refresh(self) -> None:
        """Read the ledger. Raises `DatabaseError`."""
        now = self._calendar()
        month, _ = month_of(now)
        until = max(month, now - _SETTLED_SECONDS)
        found = {tenant: totals for (tenant, _), totals in sums(self._database, month, until).items()}
        with self._lock:
            self._begin(month, until, found)

    def note(self, entry: Entry) -> None:
        """It is added to the ledger."""
        with self._lock:
            self._since.append(entry)
            self._count(entry.tenant, counted(entry))

    def priced(self, budget: Budget) -> bool:
        """Whether it can be told how much of a budget is used: one of money needs prices in its currency."""
        return budget.currency is None or (self._prices is not None and self._prices.currency == budget.currency)

    def exhausted(self, tenant: str, budget: Budget) -> bool:
        """Whether nothing is left of a budget that is priced."""
        month, _ = month_of(self._calendar())
        with self._lock:
            if month > self._month:
                self._begin(month, month, {})
            spent = self._now.get(tenant, Totals())
        return self._amount(spent, budget) >= budget.amount

    def _amount(self, spent: Totals, budget: Budget) -> Decimal:
        if budget.currency is None or self._prices is None:
            return Decimal(spent.tokens)
        return self._prices.cost(spent)

    def _begin(self, month: float, until: float, read: dict[str, Totals]) -> None:
        """Sums of what ended before `until` are these; add what has ended since."""
        self._month, self._now = month, read
        while self._since and self._since[0].ended < until:
            self._since.popleft()
        for entry in self._since:
            self._count(entry.tenant, counted(entry))

    def _count(self, tenant: str, totals: Totals) -> None:
        mine = self._now.setdefault(tenant, Totals())
        mine += totals

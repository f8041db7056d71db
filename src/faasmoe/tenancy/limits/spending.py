"""Budget usage of this month in a server's memory.

The ledger's sums are read now and then, for other servers write into it too. What this server has added to the ledger
is counted from the moment it is added until it is part of what was read: whether it waits, was written since, or was
lost because the database could not be written for too long.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

from faasmoe.tenancy.budget import Budget, month_of
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.ledger.ledger import Entry
from faasmoe.tenancy.ledger.usage import counted, sums_on, written
from faasmoe.tenancy.prices import Prices
from faasmoe.tenancy.totals import Totals

REFRESH_SECONDS = 60.0

_Sums = dict[str, Totals]  # by tenant


class Spending:
    """Usage of this month by tenant. Thread-safe; one thread calls `refresh`.

    `calendar` is seconds since the epoch. A month that has begun is left only for a later one, or, if the clock was set
    back, with sums that were read anew from the beginning of the earlier one: so no jump takes away what was counted.
    """

    def __init__(
        self, database: Database, prices: Prices | None, calendar: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._prices = prices
        self._calendar = calendar
        self._lock = threading.Lock()  # guards what follows
        self._month = 0.0  # when it began
        self._latest = 0.0  # when the latest month began that there ever was
        self._read: _Sums = {}  # what the ledger had when it was read last
        self._waiting: dict[str, Entry] = {}  # by id: added, and not known to be written
        self._held: _Sums = {}  # of these
        self._fresh: _Sums = {}  # written since then, so that the next reading will have it
        self._meanwhile: dict[str, Entry] | None = None  # written while a reading goes on, which may have it
        self._lost: _Sums = {}  # never to be written
        self._now: _Sums = {}  # all of these
        self._rate = Decimal(0)  # what functions and processors have cost a token, of all tenants together

    def refresh(self) -> None:
        """Read the ledger. Raises `DatabaseError`."""
        month, _ = month_of(self._calendar())
        with self._lock:
            self._turn(month)
            began, before = self._month, self._fresh
            self._fresh, self._meanwhile = {}, {}
        found, there = None, set[str]()
        try:
            with self._database.read() as connection:
                found = sums_on(connection, month)
                with self._lock:  # what is added after this was not there when the sums were taken
                    asked = [*self._waiting.values(), *self._meanwhile.values()]
                there = written(connection, asked)
        finally:
            with self._lock:
                self._take(month, began, before, found if self._month == began else None, there)

    def note(self, entry: Entry) -> None:
        """Count a record that is about to be added to the ledger."""
        month, _ = month_of(self._calendar())
        with self._lock:
            self._turn(month)
            self._waiting[entry.id] = entry
            self._count(self._held, entry)
            self._count(self._now, entry)

    def settled(self, entries: Sequence[Entry], durable: bool) -> None:
        """The ledger has them now, or never will."""
        with self._lock:
            for entry in entries:
                if not self._release(entry.id):
                    continue  # a reading has found it already
                if not durable:
                    self._count(self._lost, entry)
                elif self._meanwhile is None:
                    self._count(self._fresh, entry)
                else:
                    self._meanwhile[entry.id] = entry

    def priced(self, budget: Budget) -> bool:
        """True if the usage of a budget is known: a budget of money needs prices in its currency."""
        return budget.currency is None or (self._prices is not None and self._prices.currency == budget.currency)

    def left(self, tenant: str, budget: Budget) -> Decimal:
        """The rest of a priced budget, in its unit; negative if more was used."""
        month, _ = month_of(self._calendar())
        with self._lock:
            self._turn(month)
            spent = self._now.get(tenant, Totals())
            if budget.currency is None or self._prices is None:
                return budget.amount - spent.tokens
            return budget.amount - self._prices.cost(spent)

    def most(self, budget: Budget, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """The amount of a priced budget, in its unit, that a request of so many tokens takes.

        In money that is the most for the tokens themselves, and an estimate for what has no bound: functions and
        processors, at what a token of anybody has cost this month on average.
        """
        tokens = prompt_tokens + completion_tokens
        if budget.currency is None or self._prices is None:
            return Decimal(tokens)
        return self._prices.most(prompt_tokens, completion_tokens) + self._rate * tokens

    def _turn(self, month: float) -> None:
        """Begin the month that `month` is the beginning of, if it is a new one."""
        if month > self._latest:
            self._month = self._latest = month
            self._read, self._fresh, self._lost, self._held = {}, {}, {}, {}
            for entry in self._waiting.values():
                self._count(self._held, entry)
            self._recount()

    def _take(self, month: float, began: float, before: _Sums, found: _Sums | None, there: set[str]) -> None:
        """A reading has ended. `found` are its sums, None if there are none, and `there` are entries it has found."""
        meanwhile, self._meanwhile = self._meanwhile or {}, None
        if found is None:
            if self._month == began:
                _add(self._fresh, before.items())
            there = set()
        else:
            self._month, self._read = month, found
            for entry_id in there:
                self._release(entry_id)
        for entry in meanwhile.values():
            if entry.id not in there:
                self._count(self._fresh, entry)
        self._recount()

    def _recount(self) -> None:
        self._now = {}
        for part in (self._read, self._fresh, self._lost, self._held):
            _add(self._now, part.items())
        everybody = Totals()
        for totals in self._now.values():
            everybody += totals
        if self._prices is not None and everybody.tokens:
            self._rate = self._prices.resources(everybody) / everybody.tokens

    def _release(self, entry_id: str) -> bool:
        """Stop counting an entry as waiting. Returns whether it waited."""
        entry = self._waiting.pop(entry_id, None)
        if entry is not None and entry.tenant in self._held and entry.ended >= self._month:
            self._held[entry.tenant] -= counted(entry)
        if not self._waiting:
            self._held = {}  # differences of floats are not exact
        return entry is not None

    def _count(self, into: _Sums, entry: Entry) -> None:
        if entry.ended >= self._month:
            _add(into, [(entry.tenant, counted(entry))])


def _add(into: _Sums, totals: Iterable[tuple[str, Totals]]) -> None:
    for tenant, more in totals:
        mine = into.setdefault(tenant, Totals())
        mine += more

"""Tenancy of one server: authentication, limits and the ledger."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from faasmoe.tenancy.authentication import NO_PROXIES, Authentication
from faasmoe.tenancy.calendar import Calendar
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.ledger.ledger import Entry, Ledger
from faasmoe.tenancy.limits.limits import Limits
from faasmoe.tenancy.limits.recent import last_minute
from faasmoe.tenancy.limits.spending import REFRESH_SECONDS, Spending
from faasmoe.tenancy.prices import Prices
from faasmoe.tenancy.proxies import TrustedProxies
from faasmoe.tenancy.snapshot import Directory, Snapshot
from faasmoe.util.failure_log import FailureLog

log = logging.getLogger(__name__)

_LAST_SECONDS = 0.5  # that the end waits for sums that are being read


class TenancyService:
    """Runs on an open database, with threads of its own, until `close`.

    A server that is `local`, reached from this machine only, is open as long as there never was a tenant; with
    `chosen_open` one is open wherever it is, until there is a tenant. Raises `DatabaseError`.
    """

    def __init__(
        self,
        database: Database,
        prices: Prices | None = None,
        *,
        local: bool,
        chosen_open: bool = False,
        proxies: TrustedProxies = NO_PROXIES,
    ) -> None:
        self.database = database
        self.prices = prices
        self.calendar = Calendar()
        self.spending = Spending(database, prices, self.calendar)
        self.spending.refresh()
        self.directory = Directory(database, self._follow)
        self.ledger = Ledger(database, self.spending.settled)
        added = self.directory.now.added if chosen_open else (0 if local else None)
        self.authentication = Authentication(
            self.directory, added, time.monotonic, time.time, local=local, proxies=proxies
        )
        self.limits = Limits(self.spending, time.monotonic, self.calendar)
        self.limits.restore(last_minute(database, self.calendar()))
        self.idle_failures = FailureLog(log)
        self._chosen_open = chosen_open
        self._spending_failures = FailureLog(log)
        self._ended = threading.Event()
        self._sums = threading.Thread(target=self._refresh, name="spending", daemon=True)
        self._check_budgets(self.directory.now)
        self._running = ExitStack()

    def __enter__(self) -> Self:
        self._running.enter_context(self.ledger.start())
        self._running.enter_context(self.directory.start())
        self._sums.start()
        return self

    def warn(self) -> None:
        """Log a warning if the server lets in other clients than its operator may expect.

        Call it when requests are taken.
        """
        if self.authentication.open:
            log.warning("the server is open: there are no tenants, and no key is needed")
        elif self._chosen_open:
            log.warning("--open has no effect while there are tenants: each needs its key")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._running.close()
        self._sums.join(_LAST_SECONDS)  # a database that hangs keeps nobody

    @property
    def failing(self) -> str | None:
        """Why records of requests cannot be written now; None if they can."""
        return self.ledger.failing

    @property
    def failures(self) -> Mapping[str, FailureLog]:
        """The failures of the background loops, by name of the loop."""
        return {
            "ledger": self.ledger.failures,
            "directory": self.directory.failures,
            "spending": self._spending_failures,
            "idle": self.idle_failures,
        }

    def record(self, entry: Entry) -> Future[bool]:
        """Add an entry to the ledger, at once; see `Ledger.add`."""
        self.spending.note(entry)
        return self.ledger.add(entry)

    def _follow(self, snapshot: Snapshot) -> None:
        log.info("tenants or keys have changed: %d tenants, %d keys", len(snapshot.tenants), len(snapshot.keys))
        self._check_budgets(snapshot)

    def _check_budgets(self, snapshot: Snapshot) -> None:
        for tenant in snapshot.tenants.values():
            if tenant.budget is not None and not self.spending.priced(tenant.budget):
                log.error(
                    "tenant %s has a budget of %s, and there are no prices in that currency: its requests are refused",
                    tenant.name,
                    tenant.budget,
                )

    def _refresh(self) -> None:
        while not self._ended.wait(REFRESH_SECONDS):
            try:
                self.spending.refresh()
            except Exception as error:  # noqa: BLE001 - counted and told; whatever it is, the next try may do
                self._spending_failures.failed("what tenants have spent is not read anew", error)
            else:
                self._spending_failures.succeeded()

"""Finds the tenant of a key, without the database."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from faasmoe.errors import LimitExceeded, Unauthenticated, WrongHost
from faasmoe.tenancy.brute_force import BruteForceGuard
from faasmoe.tenancy.keys import LONGEST_KEY, StoredKey, id_of, matches
from faasmoe.tenancy.limits.limits import Arrival
from faasmoe.tenancy.proxies import TrustedProxies
from faasmoe.tenancy.snapshot import Snapshot
from faasmoe.tenancy.tenants import Tenant

NO_PROXIES = TrustedProxies()
_HOST = re.compile(
    r"(?:(?P<v4>\d{1,3}(?:\.\d{1,3}){3})|\[(?P<v6>[0-9a-f:]{2,39})\]|(?P<name>[a-z]+))(?::\d{1,5})?",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request: a tenant with one of its keys, or anybody if there are no tenants."""

    tenant: Tenant | None
    key_id: str
    arrival: Arrival | None = field(default=None, compare=False)  # of the request, within the tenant's limits

    @property
    def name(self) -> str:
        """The tenant's, empty for anybody."""
        return self.tenant.name if self.tenant else ""

    @property
    def weight(self) -> float:
        """The share of tokens beside others'."""
        return self.tenant.weight if self.tenant else 1.0


ANYBODY = Caller(None, "")


class Known(Protocol):
    """A holder of the newest snapshot of tenants and keys."""

    @property
    def now(self) -> Snapshot:
        """The newest snapshot."""


class Authentication:
    """Checks keys against the newest snapshot, for one thread.

    `added` is how many tenants may ever have been added to the database while the server is open, that is, needs no
    key: 0 where it is open only as long as there never was one, None where it never is. Once closed it stays closed.
    Where `local`, an open server answers only who calls it by a loopback name. `calendar` is seconds since the epoch.
    """

    def __init__(
        self,
        known: Known,
        added: int | None,
        clock: Callable[[], float],
        calendar: Callable[[], float],
        *,
        local: bool = False,
        proxies: TrustedProxies = NO_PROXIES,
    ) -> None:
        self._known = known
        self._added = added
        self._calendar = calendar
        self._local = local
        self._guesses = BruteForceGuard(clock)
        self.proxies = proxies
        self.wrong = 0  # keys, so far

    @property
    def open(self) -> bool:
        """True while requests need no key."""
        now = self._known.now
        if self._added is not None and (now.tenants or now.added > self._added):
            self._added = None
        return self._added is not None

    def check_host(self, hosts: Sequence[str]) -> None:
        """Raises `WrongHost` if an open server on loopback was called by another name; `hosts` are `Host` headers.

        A page in a browser can have its own name resolved to 127.0.0.1 ("DNS rebinding") and would read the answers.
        """
        if self.open and self._local and not (len(hosts) == 1 and is_loopback_host(hosts[0])):
            raise WrongHost(
                "without tenants this server answers only under a loopback name: send a Host header of localhost, "
                "127.0.0.1 or [::1]"
            )

    def tenant(self, text: str | None, address: str) -> Caller:
        """Whose key `text` is, sent from `address`. Raises `Unauthenticated`, or `LimitExceeded` after too many."""
        if self.open:
            return ANYBODY
        stored = self._checked(text, address, admin=False)
        return Caller(self._known.now.tenants[stored.key.tenant or ""], stored.key.id)

    def admin(self, text: str | None, address: str) -> str:
        """The id of an admin's key. Raises as `tenant` does."""
        return self._checked(text, address, admin=True).key.id

    def _checked(self, text: str | None, address: str, admin: bool) -> StoredKey:
        what = "an admin's key" if admin else "an API key"
        if text is None:
            raise Unauthenticated(f"{what} is needed")
        text = text[:LONGEST_KEY]
        stored = self._known.now.keys.get(id_of(text))
        if matches(text, stored) and stored is not None:
            if self._good(stored, admin):
                return stored
            raise _not_good(what)  # who has all of a key does not guess
        self.wrong += 1
        wait = self._guesses.wrong(address)
        if wait > 0:
            raise _too_many(wait)
        raise _not_good(what)

    def _good(self, stored: StoredKey, admin: bool) -> bool:
        key = stored.key
        there = key.admin or key.tenant in self._known.now.tenants
        return key.admin == admin and there and key.good(self._calendar())


def is_loopback_host(text: str) -> bool:
    """True if a `Host` header has a loopback name: `localhost`, 127.0.0.0/8 or `[::1]`."""
    found = _HOST.fullmatch(text.strip())
    if found is None:
        return False
    if found["name"]:
        return found["name"].lower() == "localhost"
    try:
        return ipaddress.ip_address(found["v4"] or found["v6"]).is_loopback
    except ValueError:
        return False


def _not_good(what: str) -> Unauthenticated:
    return Unauthenticated(f"the key is not {what} of this server, or does not work any more")


def _too_many(wait: float) -> LimitExceeded:
    return LimitExceeded(
        "too many wrong keys have come from this address",
        code="rate_limit_exceeded",
        limit="keys",
        retry_after=wait,
    )

"""Who asks? From a key to its tenant, without the database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from faasmoe.errors import LimitExceeded, Unauthenticated
from faasmoe.tenancy.directory import Snapshot
from faasmoe.tenancy.guesses import Guesses
from faasmoe.tenancy.keys import LONGEST_KEY, StoredKey, id_of, matches
from faasmoe.tenancy.tenants import Tenant


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a tenant with one of its keys, or anybody where there are no tenants."""

    tenant: Tenant | None
    key_id: str

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
    """What has the newest snapshot of tenants and keys."""

    @property
    def now(self) -> Snapshot:
        """It."""


class Authentication:
    """Checks keys against the newest snapshot. Where `anonymous`, everybody may ask while there are no tenants.

    For one thread. `calendar` is seconds since the epoch.
    """

    def __init__(
        self, known: Known, anonymous: bool, clock: Callable[[], float], calendar: Callable[[], float]
    ) -> None:
        self._known = known
        self._anonymous = anonymous
        self._calendar = calendar
        self._guesses = Guesses(clock)
        self.wrong = 0  # keys, so far

    @property
    def open(self) -> bool:
        """Whether no key is needed."""
        return self._anonymous and not self._known.now.tenants

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
            raise Unauthenticated(f"{what} is needed: send it as 'Authorization: Bearer KEY'")
        text = text[:LONGEST_KEY]
        key_id = id_of(text)
        stored = self._known.now.keys.get(key_id)
        if stored is not None and (wait := self._guesses.barred(address, key_id)) > 0:
            self.wrong += 1
            raise _too_many(wait)
        if matches(text, stored) and stored is not None:
            if self._good(stored, admin):
                return stored
            raise _not_good(what)  # who has all of a key does not guess
        self.wrong += 1
        wait = self._guesses.wrong(address, None if stored is None else key_id)
        if wait > 0:
            raise _too_many(wait)
        raise _not_good(what)

    def _good(self, stored: StoredKey, admin: bool) -> bool:
        key = stored.key
        there = key.admin or key.tenant in self._known.now.tenants
        return key.admin == admin and there and key.good(self._calendar())


def _not_good(what: str) -> Unauthenticated:
    return Unauthenticated(f"the key is not {what} of this server, or does not work any more")


def _too_many(wait: float) -> LimitExceeded:
    return LimitExceeded(
        "too many wrong keys have come from this address",
        code="rate_limit_exceeded",
        limit="keys",
        retry_after=wait,
    )

"""Limits of tenants while they are served. Plain data structures for one thread, with a clock that is given to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from faasmoe.errors import LimitExceeded
from faasmoe.tenancy.budget import Budget, month_of
from faasmoe.tenancy.tenants import Tenant
from faasmoe.tenancy.window import SlidingWindow

SOON = 1.0  # seconds after which to ask again, where it hangs on when others' requests end


@dataclass(frozen=True, slots=True)
class Standing:
    """What a tenant has left of one limit."""

    kind: str  # "requests" or "tokens"
    limit: int
    remaining: int
    reset: float  # seconds until all of it is there again


class Spent(Protocol):
    """What says how much of a budget has been used this month."""

    def priced(self, budget: Budget) -> bool:
        """Whether it can be told."""

    def exhausted(self, tenant: str, budget: Budget) -> bool:
        """Whether nothing is left."""


class Limits:
    """All tenants' limits in one server. `clock` never goes back, `calendar` is seconds since the epoch."""

    def __init__(self, spent: Spent, clock: Callable[[], float], calendar: Callable[[], float]) -> None:
        self._spent = spent
        self._clock = clock
        self._calendar = calendar
        self._tenants: dict[str, _Meter] = {}

    def admit(self, tenant: Tenant, prompt_tokens: int, answer_tokens: int | None) -> Lease:
        """Let a request begin, whose answer has at most so many tokens; None if that is not stated.

        Raises `LimitExceeded`. The lease has to be ended.
        """
        meter = self._tenants.setdefault(tenant.name, _Meter())
        now = self._clock()
        self._check_budget(tenant)
        if tenant.concurrency is not None and meter.running >= tenant.concurrency:
            raise _exceeded("concurrency", f"{tenant.concurrency} requests at the same time", SOON)
        if tenant.rpm is not None:
            wait = meter.requests.wait(1, tenant.rpm, now)
            if wait > 0:
                raise _exceeded("requests", f"{tenant.rpm} requests a minute", wait)
        asked = prompt_tokens + (answer_tokens or 0)
        if tenant.tpm is not None:
            _check_tokens(tenant.tpm, meter, asked, now)
        return Lease(meter, self._clock, now, prompt_tokens, answer_tokens or 0)

    def standing(self, tenant: Tenant) -> list[Standing]:
        """What is left of the limits by the minute that there are."""
        meter = self._tenants.setdefault(tenant.name, _Meter())
        now = self._clock()
        found = []
        if tenant.rpm is not None:
            left = tenant.rpm - meter.requests.total(now)
            found.append(Standing("requests", tenant.rpm, max(0, int(left)), meter.requests.reset(now)))
        if tenant.tpm is not None:
            left = tenant.tpm - meter.tokens.total(now) - meter.reserved
            found.append(Standing("tokens", tenant.tpm, max(0, int(left)), meter.tokens.reset(now)))
        return found

    def _check_budget(self, tenant: Tenant) -> None:
        budget = tenant.budget
        if budget is None:
            return
        if not self._spent.priced(budget):
            raise _out_of_budget(f"is {budget}, and this server has no prices in {budget.currency}", None)
        if self._spent.exhausted(tenant.name, budget):
            now = self._calendar()
            raise _out_of_budget(
                f"of {budget} is used up; the next month begins on its 1st, UTC", month_of(now)[1] - now
            )


class Lease:
    """A request that runs within its tenant's limits, until `end`."""

    def __init__(
        self, meter: _Meter, clock: Callable[[], float], now: float, prompt_tokens: int, answer_tokens: int
    ) -> None:
        self._meter = meter
        self._clock = clock
        self._begun = now
        self._prompt_tokens = prompt_tokens
        self._reserved = answer_tokens
        self._running = True
        meter.running += 1
        meter.reserved += answer_tokens
        meter.requests.add(1, now)
        meter.tokens.add(prompt_tokens, now)

    def generated(self, tokens: int) -> None:
        """So many more tokens have been generated."""
        if not self._running or tokens <= 0:
            return
        foreseen = min(tokens, self._reserved)
        self._reserved -= foreseen
        self._meter.reserved -= foreseen
        self._meter.tokens.add(tokens, self._clock())

    def end(self) -> None:
        """What was not generated is there for others. May be called twice."""
        if self._running:
            self._running = False
            self._meter.running -= 1
            self._meter.reserved -= self._reserved

    def cancel(self) -> None:
        """It was not run after all, and counts for nothing."""
        if self._running:
            self.end()
            self._meter.requests.take_back(1, self._begun)
            self._meter.tokens.take_back(self._prompt_tokens, self._begun)


class _Meter:
    """What one tenant has running, and had in the last minute."""

    def __init__(self) -> None:
        self.running = 0
        self.reserved = 0  # tokens that running requests may still generate
        self.requests = SlidingWindow()
        self.tokens = SlidingWindow()


def _check_tokens(limit: int, meter: _Meter, asked: int, now: float) -> None:
    if asked > limit:
        raise _exceeded("tokens", f"{limit} tokens a minute, and this request alone asks for {asked}", None)
    if meter.tokens.total(now) + meter.reserved + asked > limit:
        wait = (
            max(SOON, meter.tokens.wait(asked, limit, now))
            if meter.reserved
            else meter.tokens.wait(asked, limit, now)
        )
        raise _exceeded("tokens", f"{limit} tokens a minute, of which this request asks for {asked}", wait)


def _exceeded(limit: str, what: str, wait: float | None) -> LimitExceeded:
    return LimitExceeded(
        f"the tenant's limit is {what}", code="rate_limit_exceeded", limit=limit, retry_after=wait
    )


def _out_of_budget(what: str, wait: float | None) -> LimitExceeded:
    return LimitExceeded(
        f"the tenant's monthly budget {what}", code="insufficient_quota", limit="budget", retry_after=wait
    )

"""Limits of tenants while they are served. Plain data structures for one thread, with a clock that is given to them.

A request *arrives* before its body is read: it is counted, and refused if nothing is left for it. It is *admitted*
when its prompt is known: what it may use at most is set aside then, so that requests that run at the same time never
use more than there is, and what it has not used is given back when it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from faasmoe.errors import LimitExceeded
from faasmoe.tenancy.budget import Budget, month_of
from faasmoe.tenancy.limits.lease import SOON, Lease, LeaseMeter, LeaseRequest
from faasmoe.tenancy.limits.recent import Recent
from faasmoe.tenancy.limits.sliding_window import SECONDS
from faasmoe.tenancy.tenants import Tenant

FREE_BYTES = 4096  # of a body, whose understanding costs next to nothing
BYTES_A_TOKEN = 16  # of what is beyond, as long as nobody knows its tokens; text has about 4


@dataclass(frozen=True, slots=True)
class Standing:
    """The rest of one limit of a tenant."""

    kind: str  # "requests" or "tokens"
    limit: int
    remaining: int
    reset: float  # seconds until all of it is there again


class Spent(Protocol):
    """A source of budget usage: the amount used this month, and the amount that a request takes."""

    def priced(self, budget: Budget) -> bool:
        """True if the budget's unit has a price."""

    def left(self, tenant: str, budget: Budget) -> Decimal:
        """The rest of a priced budget, in its unit."""

    def most(self, budget: Budget, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """An upper bound of the budget, in its unit, that so many tokens take; proportional to each count."""


class Limits:
    """The limits of all tenants in one server. `clock` is monotonic seconds, `calendar` seconds since the epoch."""

    def __init__(self, spent: Spent, clock: Callable[[], float], calendar: Callable[[], float]) -> None:
        self._spent = spent
        self._clock = clock
        self._calendar = calendar
        self._tenants: dict[str, LeaseMeter] = {}

    def restore(self, used: Iterable[Recent]) -> None:
        """Count the usage of the minute before this server started. Call it before anything else."""
        now = self._clock()
        events = sorted(
            (now - age, each.tenant, requests, tokens)
            for each in used
            for age, requests, tokens in (
                (each.began_ago, 1, each.prompt_tokens),
                (each.ended_ago, 0, each.completion_tokens),
            )
            if age < SECONDS
        )
        for when, name, requests, tokens in events:
            meter = self._meter(name)
            if requests:
                meter.requests.add(requests, when)
            if tokens:
                meter.tokens.add(tokens, when)

    def arrive(self, tenant: Tenant, body_bytes: int = 0) -> Arrival:
        """A request has come, whose body has so many bytes, or an unknown number (0). It counts, however it ends.

        Raises `LimitExceeded` if nothing is left for it. The arrival has to be left.
        """
        meter, now = self._meter(tenant.name), self._clock()
        if tenant.rpm is not None:
            wait = meter.requests.wait(1, tenant.rpm, now)
            if wait > 0:
                raise _exceeded("requests", f"{tenant.rpm} requests a minute", wait)
        meter.requests.add(1, now)
        with _no_sooner_than_a_request(tenant, meter, now):
            if tenant.concurrency is not None and meter.running >= tenant.concurrency:
                raise _exceeded("concurrency", f"{tenant.concurrency} requests at the same time", SOON)
            if tenant.tpm is not None and meter.left(tenant.tpm, now) < 1:
                raise _exceeded("tokens", f"{tenant.tpm} tokens a minute", meter.wait(1, tenant.tpm, now))
            self._within_budget(tenant, meter, LeaseRequest(0, 1, 1, stated=False))
        arrival = Arrival(self, meter, tenant, now)
        arrival.received(body_bytes)
        return arrival

    def standing(self, tenant: Tenant) -> list[Standing]:
        """The rest of each rate limit."""
        meter, now = self._meter(tenant.name), self._clock()
        found = []
        if tenant.rpm is not None:
            left = tenant.rpm - meter.requests.total(now)
            found.append(Standing("requests", tenant.rpm, max(0, int(left)), meter.requests.reset(now)))
        if tenant.tpm is not None:
            left = meter.left(tenant.tpm, now)
            found.append(Standing("tokens", tenant.tpm, max(0, int(left)), meter.tokens.reset(now)))
        return found

    def _meter(self, name: str) -> LeaseMeter:
        return self._tenants.setdefault(name, LeaseMeter())

    def _within_budget(self, tenant: Tenant, meter: LeaseMeter, ask: LeaseRequest) -> int:
        """How many tokens each answer may have. Raises `LimitExceeded`."""
        budget, spent = tenant.budget, self._spent
        if budget is None:
            return ask.most
        if not spent.priced(budget):
            raise _out_of_budget(f"is {budget}, and this server has no prices in {budget.currency}", None)
        all_left = spent.left(tenant.name, budget)
        left = all_left - spent.most(budget, meter.held_prompts, meter.held_answers)
        least = ask.most if ask.stated else 1
        wanted = spent.most(budget, ask.prompt_tokens, ask.answers * least)
        if all_left <= 0 or wanted > all_left:
            end = month_of(self._calendar())[1] - self._calendar()
            why = "is used up" if all_left <= 0 else "has less left than this request may use"
            raise _out_of_budget(f"of {budget} {why}; the next month begins on its 1st, UTC", end)
        if left <= 0 or wanted > left:
            raise _exceeded(
                "budget", f"{budget} a month, and what is left is set aside for requests that run", SOON
            )
        answer = spent.most(budget, 0, ask.answers)
        if answer == 0 or ask.stated:
            return ask.most
        return min(ask.most, int((left - spent.most(budget, ask.prompt_tokens, 0)) // answer))


class Arrival:
    """A request whose body is being read and understood, from its arrival until it is left.

    A body's tokens are not known yet, so some are set aside by its bytes. They are given back when the request is
    admitted, and counted as used if it never is: understanding it has taken time.
    """

    def __init__(self, limits: Limits, meter: LeaseMeter, tenant: Tenant, now: float) -> None:
        self._limits = limits
        self._meter = meter
        self._tenant = tenant
        self._begun = now
        self._bytes = 0
        self._estimate = 0  # tokens that are set aside
        self._admitted = False
        self._left = False
        meter.running += 1

    def received(self, nbytes: int) -> None:
        """Count more bytes of the body. Reserves no more than is left, so it never refuses."""
        self._bytes += nbytes
        tpm = self._tenant.tpm
        if tpm is None or self._left or self._admitted:
            return
        more = max(0, self._bytes - FREE_BYTES) // BYTES_A_TOKEN - self._estimate
        more = max(0, min(more, int(self._meter.left(tpm, self._limits._clock()))))
        self._estimate += more
        self._meter.reserved += more

    def admit(self, ask: LeaseRequest) -> Lease:
        """Let it run. Raises `LimitExceeded`. The lease has to be ended.

        Where the client has not stated how long answers may be, they may be as long as what is left allows.
        """
        limits, meter, tenant = self._limits, self._meter, self._tenant
        now = limits._clock()
        with _no_sooner_than_a_request(tenant, meter, now):
            each = limits._within_budget(tenant, meter, ask)
            if tenant.tpm is not None:
                each = min(each, self._within_tokens(tenant.tpm, ask, now))
        meter.reserved -= self._estimate
        self._admitted = True
        return Lease(meter, limits._clock, now, ask, each)

    def _within_tokens(self, limit: int, ask: LeaseRequest, now: float) -> int:
        """How many tokens each answer may have. Raises `LimitExceeded`."""
        least = ask.tokens(ask.most if ask.stated else 1)
        if least > limit:
            raise _exceeded("tokens", f"{limit} tokens a minute, and this request alone asks for {least}", None)
        left = self._meter.left(limit, now) + self._estimate
        if least > left:
            self._charge(now)  # before it is told how long to wait
            wait = self._meter.wait(least, limit, now)
            raise _exceeded("tokens", f"{limit} tokens a minute, of which this request asks for {least}", wait)
        return ask.most if ask.stated else min(ask.most, int(left - ask.prompt_tokens) // ask.answers)

    def refused(self, by_server: bool) -> None:
        """End an admitted request that does not run. It does not count if the server is at fault."""
        if not self._admitted:
            return
        self._admitted = False
        if by_server:
            self._meter.requests.take_back(1, self._begun)
            self._estimate = 0
        self._meter.reserved += self._estimate

    def leave(self) -> None:
        """End the request: the response is complete, or the client has left. May be called twice."""
        if self._left:
            return
        self._left = True
        self._meter.running -= 1
        if not self._admitted:
            self._charge(self._limits._clock())

    def _charge(self, now: float) -> None:
        """Count the tokens reserved for the body of a request that is not run."""
        if self._estimate:
            self._meter.reserved -= self._estimate
            self._meter.tokens.add(self._estimate, now)
            self._estimate = 0


@contextmanager
def _no_sooner_than_a_request(tenant: Tenant, meter: LeaseMeter, now: float) -> Iterator[None]:
    """Raise the `retry_after` of any refusal to the time at which the limit on requests permits another one."""
    try:
        yield
    except LimitExceeded as error:
        if tenant.rpm is not None and error.retry_after is not None:
            error.retry_after = max(error.retry_after, meter.requests.wait(1, tenant.rpm, now))
        raise


def _exceeded(limit: str, what: str, wait: float | None) -> LimitExceeded:
    return LimitExceeded(
        f"the tenant's limit is {what}", code="rate_limit_exceeded", limit=limit, retry_after=wait
    )


def _out_of_budget(what: str, wait: float | None) -> LimitExceeded:
    return LimitExceeded(
        f"the tenant's monthly budget {what}", code="insufficient_quota", limit="budget", retry_after=wait
    )

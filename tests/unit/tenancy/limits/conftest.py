"""What the tests of limits share."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from faasmoe.errors import LimitExceeded
from faasmoe.tenancy.budget import Budget
from faasmoe.tenancy.limits.lease import Lease, LeaseRequest
from faasmoe.tenancy.limits.limits import Arrival, Limits
from faasmoe.tenancy.tenants import Tenant

NOVEMBER_29 = 1795910400.0  # 2026-11-29 00:00 UTC


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Purse:
    """A cent for each token, of a known number of cents."""

    def __init__(self) -> None:
        self.known = True
        self.cents = 10**6

    def priced(self, budget: Budget) -> bool:
        return self.known

    def left(self, tenant: str, budget: Budget) -> Decimal:
        return Decimal(self.cents) / 100

    def most(self, budget: Budget, prompt_tokens: int, completion_tokens: int) -> Decimal:
        return Decimal(prompt_tokens + completion_tokens) / 100


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def purse() -> Purse:
    return Purse()


@pytest.fixture
def limits(clock: Clock, purse: Purse) -> Limits:
    return Limits(purse, clock, lambda: NOVEMBER_29)


def begin(limits: Limits, tenant: Tenant, prompt: int = 1, most: int = 1, **more: Any) -> tuple[Arrival, Lease]:
    arrival = limits.arrive(tenant)
    try:
        return arrival, arrival.admit(LeaseRequest(prompt, more.pop("answers", 1), most, **more))
    except LimitExceeded:
        arrival.leave()
        raise


def refused(limits: Limits, tenant: Tenant, prompt: int = 1, most: int = 1, **more: Any) -> LimitExceeded:
    with pytest.raises(LimitExceeded) as caught:
        begin(limits, tenant, prompt, most, **more)
    return caught.value


def left_of(limits: Limits, tenant: Tenant) -> list[int]:
    return [standing.remaining for standing in limits.standing(tenant)]

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.errors import LimitExceeded
from faasmoe.tenancy.budget import Budget
from faasmoe.tenancy.limits import Lease, Limits, Standing
from faasmoe.tenancy.tenants import Tenant

NOVEMBER_29 = 1795910400.0  # 2026-11-29 00:00 UTC


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Purse:
    known = True
    empty = False

    def priced(self, budget: Budget) -> bool:
        return self.known

    def exhausted(self, tenant: str, budget: Budget) -> bool:
        return self.empty


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def purse() -> Purse:
    return Purse()


@pytest.fixture
def limits(clock: Clock, purse: Purse) -> Limits:
    return Limits(purse, clock, lambda: NOVEMBER_29)


def refused(limits: Limits, tenant: Tenant, prompt: int = 1, answer: int | None = 1) -> LimitExceeded:
    with pytest.raises(LimitExceeded) as caught:
        limits.admit(tenant, prompt, answer)
    return caught.value


def test_requests_a_minute(limits: Limits, clock: Clock) -> None:
    tenant = Tenant("a", rpm=2)
    limits.admit(tenant, 1, 1)
    clock.now += 10
    limits.admit(tenant, 1, 1)
    clock.now += 10
    error = refused(limits, tenant)
    assert (error.code, error.limit, error.retry_after) == ("rate_limit_exceeded", "requests", 40)
    assert limits.standing(tenant) == [Standing("requests", 2, 0, 50)]
    limits.admit(Tenant("b", rpm=1), 1, 1)  # others have their own
    clock.now += 40
    limits.admit(tenant, 1, 1)


def test_limits_change_while_they_are_in_use(limits: Limits) -> None:
    tenant = Tenant("a", rpm=1)
    limits.admit(tenant, 1, 1)
    refused(limits, tenant)
    limits.admit(replace(tenant, rpm=2), 1, 1)
    assert limits.standing(tenant)[0].remaining == 0
    limits.admit(replace(tenant, rpm=None), 1, 1)


def test_concurrent_requests(limits: Limits) -> None:
    tenant = Tenant("a", concurrency=2)
    leases = [limits.admit(tenant, 1, 1) for _ in range(2)]
    error = refused(limits, tenant)
    assert (error.limit, error.retry_after) == ("concurrency", 1)
    leases[0].end()
    leases[0].end()  # once is enough
    limits.admit(tenant, 1, 1)
    refused(limits, tenant)


def test_tokens_a_minute_are_set_aside_and_given_back(limits: Limits, clock: Clock) -> None:
    tenant = Tenant("a", tpm=100)
    lease = limits.admit(tenant, 20, 60)
    assert limits.standing(tenant) == [Standing("tokens", 100, 20, 60)]
    assert refused(limits, tenant, 10, 11).retry_after == 1  # when the other ends
    lease.generated(5)
    assert limits.standing(tenant)[0].remaining == 20
    lease.end()
    assert limits.standing(tenant)[0].remaining == 75
    clock.now += 60
    assert limits.standing(tenant)[0].remaining == 100


def test_answers_of_unstated_length_are_counted_as_they_grow(limits: Limits) -> None:
    tenant = Tenant("a", tpm=100)
    lease = limits.admit(tenant, 20, None)
    lease.generated(90)
    assert limits.standing(tenant)[0].remaining == 0
    refused(limits, tenant)


def test_what_can_never_be_taken_says_so(limits: Limits) -> None:
    error = refused(limits, Tenant("a", tpm=100), 50, 51)
    assert error.retry_after is None
    assert "100 tokens a minute, and this request alone asks for 101" in str(error)
    limits.admit(Tenant("a", tpm=100), 50, 50)


def test_what_was_not_run_counts_for_nothing(limits: Limits) -> None:
    tenant = Tenant("a", rpm=1, tpm=10, concurrency=1)
    for _ in range(3):
        limits.admit(tenant, 5, 5).cancel()
    assert [standing.remaining for standing in limits.standing(tenant)] == [1, 10]


def test_budgets(limits: Limits, purse: Purse) -> None:
    tenant = Tenant("a", budget=Budget(Decimal(5), "USD"))
    limits.admit(tenant, 1, 1)
    purse.empty = True
    error = refused(limits, tenant)
    assert (error.code, error.limit, error.retry_after) == ("insufficient_quota", "budget", 2 * 86400)
    purse.known = False
    error = refused(limits, tenant)
    assert (error.code, error.retry_after) == ("insufficient_quota", None)
    assert "no prices in USD" in str(error)
    limits.admit(Tenant("b"), 1, 1)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.floats(0, 30)),
        st.tuples(st.just("ask"), st.tuples(st.integers(0, 20), st.integers(0, 30))),
        st.tuples(st.just("generate"), st.tuples(st.integers(0, 20), st.integers(0, 10))),
        st.tuples(st.just("end"), st.integers(0, 20)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 8), st.integers(20, 80), st.integers(1, 5))
def test_no_minute_ever_has_more_than_the_limits(steps: list, rpm: int, tpm: int, concurrency: int) -> None:
    clock = Clock()
    limits, tenant = Limits(Purse(), clock, lambda: 0.0), Tenant("a", 1, rpm, tpm, concurrency)
    open_: list[list] = []  # lease, tokens left
    requests: list[float] = []
    tokens: list[tuple[float, int]] = []
    waits: list[float | None] = []
    for what, arg in steps:
        if what == "wait":
            clock.now += arg
        elif what == "ask":
            try:
                lease: Lease = limits.admit(tenant, *arg)
            except LimitExceeded as error:
                waits.append(error.retry_after)
            else:
                open_.append([lease, arg[1]])
                requests.append(clock.now)
                tokens.append((clock.now, arg[0]))
        elif open_:
            chosen = open_[(arg[0] if what == "generate" else arg) % len(open_)]
            if what == "generate":
                count = min(arg[1], chosen[1])
                chosen[0].generated(count)
                chosen[1] -= count
                tokens.append((clock.now, count))
            else:
                chosen[0].end()
                open_.remove(chosen)
        assert len(open_) <= concurrency
        assert sum(when + 60 > clock.now for when in requests) <= rpm
        assert sum(count for when, count in tokens if when + 60 > clock.now) <= tpm
        standings = limits.standing(tenant)
        assert all(0 <= standing.remaining <= standing.limit for standing in standings)
    assert all(wait is None or wait > 0 for wait in waits)

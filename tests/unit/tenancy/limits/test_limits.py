from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from faasmoe.errors import LimitExceeded
from faasmoe.tenancy.budget import Budget
from faasmoe.tenancy.limits.lease import LeaseRequest
from faasmoe.tenancy.limits.limits import FREE_BYTES, Limits, Standing
from faasmoe.tenancy.tenants import Tenant
from tests.unit.tenancy.limits.conftest import Clock, Purse, begin, left_of, refused


def test_requests_a_minute(limits: Limits, clock: Clock) -> None:
    tenant = Tenant("a", rpm=2)
    begin(limits, tenant)
    clock.now += 10
    begin(limits, tenant)
    clock.now += 10
    error = refused(limits, tenant)
    assert (error.code, error.limit, error.retry_after) == ("rate_limit_exceeded", "requests", 40)
    assert limits.standing(tenant) == [Standing("requests", 2, 0, 50)]
    begin(limits, Tenant("b", rpm=1))  # others have their own
    clock.now += 40
    begin(limits, tenant)  # those that were refused by the number of requests make nobody wait longer


def test_what_is_refused_or_not_understood_counts_as_a_request(limits: Limits, clock: Clock) -> None:
    tenant = Tenant("a", rpm=3, tpm=10)
    assert refused(limits, tenant, 5, 6).retry_after is None  # more than there ever is
    limits.arrive(tenant).leave()  # 400
    arrival, lease = begin(limits, tenant)
    lease.cancel()
    arrival.refused(by_server=False)  # 400 from the orchestrator
    arrival.leave()
    assert left_of(limits, tenant) == [0, 10]
    assert refused(limits, tenant).limit == "requests"
    clock.now += 60
    assert refused(limits, tenant, 11, 0).limit == "tokens"
    assert left_of(limits, tenant) == [2, 10]


def test_what_the_server_does_not_take_counts_for_nothing(limits: Limits) -> None:
    tenant = Tenant("a", rpm=1, tpm=10, concurrency=1)
    for _ in range(3):
        arrival, lease = begin(limits, tenant, 5, 5)
        lease.cancel()
        arrival.refused(by_server=True)
        arrival.leave()
    assert left_of(limits, tenant) == [1, 10]


def test_limits_change_while_they_are_in_use(limits: Limits) -> None:
    tenant = Tenant("a", rpm=1)
    begin(limits, tenant)
    refused(limits, tenant)
    begin(limits, replace(tenant, rpm=2))
    assert left_of(limits, tenant) == [0]
    begin(limits, replace(tenant, rpm=None))


def test_concurrent_requests_count_from_their_arrival(limits: Limits) -> None:
    tenant = Tenant("a", concurrency=2)
    arrival = limits.arrive(tenant)  # whose body is being read
    begin(limits, tenant)
    error = refused(limits, tenant)
    assert (error.limit, error.retry_after) == ("concurrency", 1)
    arrival.leave()
    arrival.leave()  # once is enough
    begin(limits, tenant)
    refused(limits, tenant)


def test_tokens_a_minute_are_set_aside_and_given_back(limits: Limits, clock: Clock) -> None:
    tenant = Tenant("a", tpm=100)
    _, lease = begin(limits, tenant, 20, 60)
    assert limits.standing(tenant) == [Standing("tokens", 100, 20, 60)]
    assert refused(limits, tenant, 10, 11).retry_after == 1  # when the other ends
    lease.generated(5)
    assert left_of(limits, tenant) == [20]
    lease.end()
    assert left_of(limits, tenant) == [75]
    clock.now += 60
    assert left_of(limits, tenant) == [100]


def test_answers_of_unstated_length_get_what_is_left(limits: Limits) -> None:
    tenant = Tenant("a", tpm=100)
    _, lease = begin(limits, tenant, 20, 2000, stated=False)
    assert lease.most == 80
    assert refused(limits, tenant, 1, 2000, stated=False).retry_after == 1
    lease.generated(30)
    lease.end()
    assert left_of(limits, tenant) == [50]
    _, lease = begin(limits, tenant, 9, 2000, stated=False, answers=4)
    assert lease.most == 10  # each of four
    assert begin(limits, Tenant("b", tpm=10**6), 9, 2000, stated=False)[1].most == 2000
    assert begin(limits, Tenant("c"), 9, 2000, stated=False)[1].most == 2000


def test_what_was_stated_is_never_made_less(limits: Limits, purse: Purse) -> None:
    purse.cents = 100
    tenant = Tenant("a", tpm=100, budget=Budget(Decimal(9), "USD"))
    assert begin(limits, tenant, 20, 40)[1].most == 40
    refused(limits, tenant, 20, 21)
    assert begin(limits, tenant, 20, 20)[1].most == 20


def test_what_can_never_be_taken_says_so(limits: Limits) -> None:
    error = refused(limits, Tenant("a", tpm=100), 50, 51)
    assert error.retry_after is None
    assert "100 tokens a minute, and this request alone asks for 101" in str(error)
    assert refused(limits, Tenant("a", tpm=100), 100, 9, stated=False).retry_after is None
    begin(limits, Tenant("a", tpm=100), 50, 50)


def test_bodies_are_estimated_before_they_are_read(limits: Limits, clock: Clock) -> None:
    tenant = Tenant("a", tpm=1000)
    limits.arrive(tenant, FREE_BYTES).leave()  # small ones cost nothing
    assert left_of(limits, tenant) == [1000]
    arrival = limits.arrive(tenant, FREE_BYTES + 160)
    assert left_of(limits, tenant) == [990]
    lease = arrival.admit(LeaseRequest(500, 1, 500))  # it is known now
    assert left_of(limits, tenant) == [0]
    lease.end()
    arrival.leave()
    clock.now += 60
    hostile = limits.arrive(tenant, 4 << 20)
    for _ in range(3):
        with pytest.raises(LimitExceeded, match="1000 tokens a minute"):
            limits.arrive(tenant, 4 << 20)
    hostile.leave()  # 400: its body was read for nothing, which the tenant pays
    with pytest.raises(LimitExceeded) as caught:
        limits.arrive(tenant)
    assert caught.value.retry_after == 60


def test_bodies_of_unknown_size_are_estimated_as_they_come(limits: Limits) -> None:
    tenant = Tenant("a", tpm=1000)
    arrival = limits.arrive(tenant)
    for _ in range(100):
        arrival.received(FREE_BYTES)
    assert left_of(limits, tenant) == [0]
    arrival.admit(LeaseRequest(900, 1, 100))  # and it refuses nothing that fits
    arrival.received(FREE_BYTES)
    assert left_of(limits, tenant) == [0]
    arrival.leave()


def test_who_comes_again_when_told_to_is_taken(limits: Limits, clock: Clock) -> None:
    """Also with a large body, which costs tokens when it is refused."""
    tenant = Tenant("a", tpm=1000, rpm=10)
    begin(limits, tenant, 500, 0)
    clock.now += 30
    size = FREE_BYTES + 10**5
    for expected in (60, None):
        arrival = limits.arrive(tenant, size)
        if expected is None:
            arrival.admit(LeaseRequest(600, 1, 0))
            break
        with pytest.raises(LimitExceeded) as caught:
            arrival.admit(LeaseRequest(600, 1, 0))
        arrival.leave()
        assert caught.value.retry_after == expected
        clock.now += expected
    strict = Tenant("b", tpm=10, rpm=1)
    assert refused(limits, strict, 1, 10).retry_after is None
    strict = Tenant("c", concurrency=1, rpm=2)
    begin(limits, strict)
    assert refused(limits, strict).retry_after == 60  # by then there is a request again


def test_budgets(limits: Limits, purse: Purse) -> None:
    tenant = Tenant("a", budget=Budget(Decimal(5), "USD"))
    begin(limits, tenant)
    purse.cents = 0
    error = refused(limits, tenant)
    assert (error.code, error.limit, error.retry_after) == ("insufficient_quota", "budget", 2 * 86400)
    purse.known = False
    error = refused(limits, tenant)
    assert (error.code, error.retry_after) == ("insufficient_quota", None)
    assert "no prices in USD" in str(error)
    begin(limits, Tenant("b"))


def test_budgets_are_set_aside_until_what_was_used_is_counted(limits: Limits, purse: Purse) -> None:
    tenant = Tenant("a", budget=Budget(Decimal(5), "USD"))
    purse.cents = 50
    error = refused(limits, tenant, 20, 31)
    assert (error.code, "less left than this request may use" in str(error)) == ("insufficient_quota", True)
    arrival, lease = begin(limits, tenant, 20, 20)
    lease.generated(15)
    arrival.leave()
    error = refused(limits, tenant, 5, 6)  # what was generated is not in the ledger yet
    assert (error.code, error.limit, error.retry_after) == ("rate_limit_exceeded", "budget", 1)
    assert begin(limits, tenant, 4, 2000, stated=False)[1].most == 6
    purse.cents -= 35
    lease.end()
    assert refused(limits, tenant, 3, 3).code == "rate_limit_exceeded"
    assert begin(limits, tenant, 2, 2000, stated=False, answers=3)[1].most == 1

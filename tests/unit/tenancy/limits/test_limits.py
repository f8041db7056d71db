from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.errors import LimitExceeded
from faasmoe.tenancy.budget import Budget
from faasmoe.tenancy.limits.lease import Lease, LeaseRequest
from faasmoe.tenancy.limits.limits import FREE_BYTES, Arrival, Limits, Standing
from faasmoe.tenancy.limits.recent import Recent
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


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("budgeted", [True, False])
def test_a_race_of_forty_uses_no_more_than_there_is(stated: bool, budgeted: bool) -> None:
    """Tasks of one loop, as in a server: bodies come, prompts are understood, tokens come one by one, then records."""
    clock, purse = Clock(), Purse()
    purse.cents = 300
    limits = Limits(purse, clock, lambda: 0.0)
    tenant = Tenant("a", tpm=None if budgeted else 300, budget=Budget(Decimal(3), "USD") if budgeted else None)
    random = Random(7)
    used = [0]

    async def pause() -> None:
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)

    async def request(started: asyncio.Event) -> bool:
        await started.wait()
        await pause()
        try:
            arrival = limits.arrive(tenant, random.randrange(10**5))
        except LimitExceeded:
            return False
        await pause()
        try:
            lease = arrival.admit(LeaseRequest(7, 2, random.randrange(1, 30) if stated else 2048, stated))
        except LimitExceeded:
            arrival.leave()
            return False
        used[0] += 7
        mine = 7
        for _ in range(random.randrange(2 * lease.most + 1)):
            await pause()
            lease.generated(1)
            used[0] += 1
            mine += 1
        arrival.leave()
        await pause()
        purse.cents -= mine
        lease.end()
        return True

    async def race() -> int:
        started = asyncio.Event()
        tasks = [asyncio.create_task(request(started)) for _ in range(40)]
        started.set()
        return sum(await asyncio.gather(*tasks))

    taken = sum(asyncio.run(race()) for _ in range(5))
    assert used[0] <= 300
    assert taken >= 2
    assert used[0] > 100 or not stated


def test_what_was_used_before_a_restart_is_counted(clock: Clock) -> None:
    limits = Limits(Purse(), clock, lambda: 0.0)
    limits.restore(
        [
            Recent("a", 70, 50, 1000, 20),
            Recent("a", 12, 10, 5, 7),
            Recent("a", 3, 0, 1, 1),
            Recent("b", 1, 1, 2, 2),
        ]
    )
    tenant = Tenant("a", rpm=3, tpm=100)
    assert limits.standing(tenant) == [Standing("requests", 3, 1, 57), Standing("tokens", 100, 66, 60)]
    clock.now += 10
    assert left_of(limits, tenant) == [1, 86]  # 20 were an answer's, which has ended a minute ago
    assert left_of(limits, Tenant("b", rpm=3)) == [2]


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
    limits, tenant = (
        Limits(Purse(), clock, lambda: 0.0),
        Tenant("a", weight=1, rpm=rpm, tpm=tpm, concurrency=concurrency),
    )
    open_: list[list] = []  # lease, tokens left
    requests: list[float] = []
    tokens: list[tuple[float, int]] = []
    waits: list[float | None] = []
    for what, arg in steps:
        if what == "wait":
            clock.now += arg
        elif what == "ask":
            try:
                arrival, lease = begin(limits, tenant, arg[0], arg[1])
            except LimitExceeded as error:
                waits.append(error.retry_after)
                requests += [clock.now] * (error.limit != "requests")
            else:
                open_.append([lease, arg[1], arrival])
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
                chosen[2].leave()
                open_.remove(chosen)
        assert len(open_) <= concurrency
        assert sum(when + 60 > clock.now for when in requests) <= rpm
        assert sum(count for when, count in tokens if when + 60 > clock.now) <= tpm
        standings = limits.standing(tenant)
        assert all(0 <= standing.remaining <= standing.limit for standing in standings)
    assert all(wait is None or wait > 0 for wait in waits)

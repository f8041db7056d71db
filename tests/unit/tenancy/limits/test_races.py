"""Limits while many requests come, are understood and end at the same time."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.errors import LimitExceeded
from faasmoe.tenancy.budget import Budget
from faasmoe.tenancy.limits.lease import LeaseRequest
from faasmoe.tenancy.limits.limits import Limits, Standing
from faasmoe.tenancy.limits.recent import Recent
from faasmoe.tenancy.tenants import Tenant
from tests.unit.tenancy.limits.conftest import Clock, Purse, begin, left_of


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

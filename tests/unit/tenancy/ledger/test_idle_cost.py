from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from faasmoe.tenancy.ledger.idle_cost import IdleShares


def test_idle_time_is_split_by_what_was_used_in_the_period() -> None:
    shares = IdleShares()
    shares.note({"a": 1.0, "b": 1.0})
    shares.note({"a": 2.0})
    assert shares.split(12.0) == {"a": pytest.approx(6), "b": pytest.approx(2)}
    shares.note({"b": 1.0})
    assert shares.split(15.0) == {"b": pytest.approx(2)}


def test_a_period_in_which_nobody_does_anything_is_split_as_the_last_one() -> None:
    shares = IdleShares()
    assert shares.split(3.0) == {}  # there is nobody yet
    shares.note({"a": 1.0, "b": 3.0})
    assert shares.split(8.0) == {"a": pytest.approx(1), "b": pytest.approx(3)}
    assert shares.split(8.0) == {}
    shares.note({"a": 0.0})  # of a step without a call
    assert shares.split(12.0) == {"a": pytest.approx(1), "b": pytest.approx(3)}


def test_a_new_pool_begins_at_zero() -> None:
    shares = IdleShares()
    shares.note({"a": 1.0})
    assert shares.split(100.0) == {"a": pytest.approx(99)}
    shares.note({"a": 1.0})
    assert shares.split(5.0) == {"a": pytest.approx(4)}


tenants = st.dictionaries(st.sampled_from("abcd"), st.floats(0, 10), max_size=4)


@example([({"a": 5e-324}, 1.5)])  # the smallest number there is
@given(st.lists(st.tuples(tenants, st.floats(0, 50)), max_size=20))
def test_all_tenants_pay_what_the_pool_has_taken(periods: list[tuple[dict[str, float], float]]) -> None:
    shares, paid, pool = IdleShares(), 0.0, 0.0
    for used, idle in periods:
        shares.note(used)
        pool += sum(used.values()) + idle
        shares_of = shares.split(pool)
        assert all(share >= 0 for share in shares_of.values())
        paid += sum(used.values()) + sum(shares_of.values())
    if any(any(used.values()) for used, _ in periods):
        shares.note({"a": 1.0})
        paid += 1.0 + sum(shares.split(pool + 1.0).values())
        assert paid == pytest.approx(pool + 1.0)


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(0.1, 5))
def test_calls_that_are_reported_before_the_pools_total_are_made_up_for(
    used: float, more: float, idle: float
) -> None:
    shares = IdleShares()
    shares.note({"a": used})
    first = sum(shares.split(used / 2).values())
    shares.note({"a": more})
    second = sum(shares.split(used + more + idle).values())
    assert first == 0
    assert second == pytest.approx(idle)

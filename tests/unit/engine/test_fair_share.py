from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.engine.fair_share import FairShare
from faasmoe.errors import OptionError


def serve_least(fair: FairShare, tenants: list[str], tokens: int) -> str:
    tenant = min(tenants, key=fair.tag)
    fair.serve(tenant, tokens)
    return tenant


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=4), st.integers(1, 20))
def test_what_tenants_get_is_as_their_weights(weights: list[float], largest: int) -> None:
    fair, got = FairShare(), dict.fromkeys(map(str, range(len(weights))), 0)
    for tenant, weight in zip(got, weights, strict=True):
        fair.set_weight(tenant, weight)
        fair.join(tenant)
    for turn in range(500):
        tokens = 1 + turn % largest
        got[serve_least(fair, list(got), tokens)] += tokens
    served = [got[tenant] / weight for tenant, weight in zip(got, weights, strict=True)]
    # the bound of the paper: no two differ by more than one turn of each
    assert max(served) - min(served) <= 2 * largest / min(weights) + 1e-6


def test_idling_earns_nothing() -> None:
    fair = FairShare()
    fair.join("idle")
    fair.leave("idle")
    fair.join("busy")
    for _ in range(1000):
        fair.serve("busy", 10)
    fair.join("idle")
    turns = [serve_least(fair, ["idle", "busy"], 10) for _ in range(10)]
    assert turns.count("idle") in (5, 6)


def test_a_turn_that_was_not_taken_costs_nothing() -> None:
    fair = FairShare()
    fair.join("a")
    fair.serve("a", 8)
    fair.refund("a", 8)
    assert fair.tag("a") == 0


def test_what_was_served_ahead_is_remembered_over_a_pause() -> None:
    fair = FairShare()
    fair.join("a")
    fair.serve("a", 8)
    fair.leave("a")
    fair.join("a")
    assert fair.tag("a") == 8


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf])
def test_weights_are_positive_numbers(weight: float) -> None:
    with pytest.raises(OptionError, match="weight of tenant 'a'"):
        FairShare().set_weight("a", weight)


def test_tokens_that_others_have_served_count_for_who_has_work_here() -> None:
    fair = FairShare()
    fair.set_weight("a", 2)
    fair.join("a")
    fair.charge_elsewhere("a", 10)
    fair.charge_elsewhere("idle", 10)
    fair.join("idle")
    assert (fair.tag("a"), fair.tag("idle")) == (5, 0)
    assert fair.take_served() == {}  # served by others


def test_what_was_served_is_taken_once() -> None:
    fair = FairShare()
    fair.join("a")
    fair.join("b")
    fair.serve("a", 10)
    fair.charge("a", 2)
    fair.serve("b", 4)
    fair.refund("b", 1)
    assert fair.take_served() == {"a": 12, "b": 3}
    assert fair.take_served() == {}

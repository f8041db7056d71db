"""Which pool has a node."""

from __future__ import annotations

import pytest

from faasmoe.platforms.cluster.agent.claim import GRACE, NodeClaim
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.messages import Hello
from tests.unit.clocks import Clock


def hello(pool: str, lane: str = "beat", head: bool = True) -> Hello:
    return Hello(lane=lane, pool=pool, head=head)


def test_a_head_claims_and_its_clients_follow() -> None:
    claim = NodeClaim()
    with pytest.raises(LinkRefused, match="not with pool p"):
        claim.admit(hello("p", "calls", head=False))
    assert claim.admit(hello("p")) == ""
    assert claim.admit(hello("p", "calls", head=False)) == ""
    with pytest.raises(LinkRefused, match="not with pool q"):
        claim.admit(hello("q", "calls", head=False))


def test_a_second_head_is_refused_while_the_first_is_there() -> None:
    claim = NodeClaim()
    claim.admit(hello("p"))
    with pytest.raises(LinkRefused, match="another server has the node: that of pool p"):
        claim.admit(hello("q"))
    claim.leave(hello("p"))
    assert claim.admit(hello("q")) == "p"


def test_a_head_that_comes_back_finds_its_node() -> None:
    clock = Clock()
    claim = NodeClaim(clock)
    claim.admit(hello("p"))
    claim.leave(hello("p"))
    clock.now += GRACE - 1
    assert not claim.expired()
    assert claim.admit(hello("p")) == ""
    clock.now += GRACE + 1
    assert not claim.expired()


def test_a_node_is_free_when_its_head_has_been_gone_for_long() -> None:
    clock = Clock()
    claim = NodeClaim(clock)
    assert not claim.expired()
    claim.admit(hello("p"))
    claim.leave(hello("p"))
    clock.now += GRACE
    assert claim.expired() == "p"
    assert not claim.expired()
    assert claim.admit(hello("q")) == ""


def test_who_has_no_pool_may_only_look() -> None:
    claim = NodeClaim()
    assert claim.admit(hello("", "orders", head=False)) == ""
    with pytest.raises(LinkRefused, match="lane calls needs a pool"):
        claim.admit(hello("", "calls", head=False))


def test_the_late_end_of_an_old_head_changes_nothing() -> None:
    claim = NodeClaim()
    claim.admit(hello("p"))
    claim.leave(hello("p"))
    claim.admit(hello("q"))
    claim.leave(hello("p"))
    with pytest.raises(LinkRefused, match="another server"):
        claim.admit(hello("r"))

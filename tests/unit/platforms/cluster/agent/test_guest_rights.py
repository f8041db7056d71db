"""What an orchestrator on a node may have of agents."""

from __future__ import annotations

import socket

import pytest

from faasmoe.platforms.cluster.agent.guest import Guest
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.messages import (
    AskCatalogue,
    AskNode,
    DrainNode,
    Hello,
    Install,
    Lane,
    Order,
    PrewarmFunctions,
    StopFunctions,
)
from faasmoe.platforms.cluster.protocol.tls import Peer
from faasmoe.platforms.local.protocol.wire import Lost


def guest(role: str, lane: Lane = "orders", pool: str = "p", head: bool = False) -> Guest:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        return Guest(Connection(ours, 100), Peer(role, "a", b""), Hello(lane=lane, pool=pool, head=head))


@pytest.mark.parametrize("lane", ["beat", "orders", "calls"])
def test_it_may_call(lane: Lane) -> None:
    guest("orchestrator", lane).check_rights()


@pytest.mark.parametrize("lane", ["weights", "hosting", "orchestrator"])
def test_lanes_of_the_head_are_not_for_it(lane: Lane) -> None:
    with pytest.raises(LinkRefused, match="of node a may call functions, and nothing else"):
        guest("orchestrator", lane).check_rights()
    guest("server", lane, head=True).check_rights()


def test_it_is_no_head_and_works_for_a_pool() -> None:
    for other in (guest("orchestrator", "beat", head=True), guest("orchestrator", pool="")):
        with pytest.raises(LinkRefused, match="nothing else"):
            other.check_rights()


@pytest.mark.parametrize("order", [Install(()), StopFunctions(()), DrainNode(True)])
def test_it_changes_no_functions(order: Order) -> None:
    with pytest.raises(Lost, match="of an orchestrator"):
        guest("orchestrator").check_order(order)
    guest("server").check_order(order)


@pytest.mark.parametrize("order", [AskNode(), AskCatalogue(0), PrewarmFunctions(("f",))])
def test_it_may_look_and_prewarm(order: Order) -> None:
    guest("orchestrator").check_order(order)
